"""Scores: numpy in, float out. No torch."""
