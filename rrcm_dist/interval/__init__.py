"""Interval bound propagation: networks, bounds, margins, losses and the certificates that follow (ℓ∞, deterministic).

Nothing here knows of randomized smoothing: its ℓ2 radii hold with a probability, these bounds hold for every image in
the ball.
"""
