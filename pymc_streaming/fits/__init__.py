"""Kinds of fit: where batches or blocks of a loader meet what is compiled of a model."""
