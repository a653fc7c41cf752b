"""Everything that ranks say to each other."""
