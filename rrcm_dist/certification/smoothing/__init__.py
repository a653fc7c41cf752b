"""Counting noise draws as work for the pool: which blocks an image needs, and what their counts come to."""
