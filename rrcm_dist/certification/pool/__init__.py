"""One ledger, any crew: what to count next, on whom, and what to do when a worker fails. Knows nothing of Ray."""
