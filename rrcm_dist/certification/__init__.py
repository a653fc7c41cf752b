"""Randomized smoothing: noise, counts, ledger, bounds."""
