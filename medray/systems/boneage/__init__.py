"""Pediatric bone age from hand radiographs."""
