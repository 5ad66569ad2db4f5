"""Train, cross-validate and search medical-imaging models on Ray."""
