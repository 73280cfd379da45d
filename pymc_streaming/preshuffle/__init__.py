"""Shuffling a table exactly, on disk, once."""
