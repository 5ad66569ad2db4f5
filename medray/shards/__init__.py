"""Parquet between the stages: where files live, what columns they hold, who is who, and the folds. No Ray."""
