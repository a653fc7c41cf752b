"""What certificates add up to: numbers with their uncertainty, each with its formula and source."""
