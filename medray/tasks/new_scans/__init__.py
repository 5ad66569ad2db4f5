"""Organs in scans that no network of a run has seen: the answers, and the tables of them."""
