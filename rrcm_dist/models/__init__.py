"""The encoder, its heads, and weights in and out."""
