"""Reporting on deterministic ℓ∞ verification: errors at ε, apart from everything on ℓ2 radii."""
