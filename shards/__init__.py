"""Shards: images as WebDataset tars with an index. `python -m shards --help`."""
