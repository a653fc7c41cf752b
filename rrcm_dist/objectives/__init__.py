"""Losses as maths on tensors."""
