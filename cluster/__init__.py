"""Launching: runs on this machine or a cluster. `python -m cluster --help`."""
