"""The steps of gpu.py, a file each: PARTS is name → a function of (dry, until) that gives what is to be kept."""
