"""The ages of all networks → one answer, and what is right and wrong with each."""
