"""The systems: each a folder that imports no other one, nor the engine."""
