"""Recipes: their types, how they are read, what they will cost."""
