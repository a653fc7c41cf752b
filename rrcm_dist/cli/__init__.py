"""The door: `rrcm COMMAND`. One file per command; the work is done in the rooms below."""
