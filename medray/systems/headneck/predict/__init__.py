"""Contours of new scans by a finished run."""
