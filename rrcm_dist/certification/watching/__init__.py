"""Showing a certification while it runs: what is shown, and to whom. Nothing here can stop a run."""
