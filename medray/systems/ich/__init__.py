"""Intracranial hemorrhage on head CT: six probabilities a slice (RSNA 2019 challenge)."""
