"""What the files are, who says what of them, and which of them are films."""
