"""What a worker does: get the classifier, draw noise, classify, count. Knows nothing of ledgers."""
