"""Ages of new films by a finished run."""
