"""A run, its folds, the one loop, the optimizer step, state that resumes."""
