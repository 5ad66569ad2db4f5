"""A search over the fields of any task, by Ray Tune and Optuna."""
