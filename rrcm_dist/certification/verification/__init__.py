"""ℓ∞ verification of interval-trained networks as work for the pool, into a ledger of its own kind."""
