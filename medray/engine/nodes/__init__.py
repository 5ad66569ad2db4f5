"""Nodes that come and go: spot instances, notices, a number of workers that changes, idle nodes that are let go."""
