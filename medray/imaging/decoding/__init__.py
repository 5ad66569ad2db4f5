"""Compressed pixels, decoded in a process that may die of them."""
