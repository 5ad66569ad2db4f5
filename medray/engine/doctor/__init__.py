"""Before money is spent: what a run would fail on."""
