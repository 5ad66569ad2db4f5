"""Findings on frontal chest radiographs: a probability for each of 14, or for groups of them (ChestX-ray14)."""
