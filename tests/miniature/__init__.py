"""Two small systems that the engine has never seen: what a new one has to bring, and nothing more."""
