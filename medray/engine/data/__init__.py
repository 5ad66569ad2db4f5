"""Files to an inventory, to shards, to samples in an order, to batches on their way."""
