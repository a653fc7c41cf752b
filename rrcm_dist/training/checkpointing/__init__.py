"""Checkpoints: written beside training, copied to a second place, taken up by any number of ranks."""
