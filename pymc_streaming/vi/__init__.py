"""Variational inference: the model's binding to its data, guides, and the compiled step."""
