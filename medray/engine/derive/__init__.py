"""Finished networks over rows or new files."""
