"""Task, which says what a problem is, and the kinds of task that systems share."""
