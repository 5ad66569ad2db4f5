"""What every job has: flags, the claim on --out, the plan, progress, tracking."""
