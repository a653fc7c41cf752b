"""Runs from logs and ledgers: what is found, read and refused."""
