"""Whether the nodes of an allocation are fit for a run, found out before it begins.

Of the scheduler it knows only the variables that tell a process its place.

Two steps: `node.py` looks, once a node and without torch, at what the run needs there; `rank.py`, once a rank, joins
the ranks as training does and measures an all-reduce. What they say line by line, `reports.py` collects, so that a node
that falls silent is known by where it did; `verdict.py` decides which nodes are to blame, `pairs.py` finds those
between which communication fails.
"""
