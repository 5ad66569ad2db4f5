"""Networks and losses that two systems share. torch, no Ray."""
