"""Runs as jobs of a Ray cluster that is there already: submitted to its head node, driven from there."""
