"""Many workers, one ledger: what to count next, on whom, and what to do when one fails."""
