"""A film → the hand → its points → the canvas → regions."""
