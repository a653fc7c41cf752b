"""Hard negatives of samples: a bank of representations over all ranks, and which of them are mined from it."""
