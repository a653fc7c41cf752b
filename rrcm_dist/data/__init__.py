"""Samples: index, order, decoding, views, loaders."""
