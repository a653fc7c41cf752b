"""A Ray cluster of a job's own: nodes of Ray that a process starts on its host, apart from every other Ray there.

Whatever a node listens on has a port that the kernel found free, its folder and token are its own, and nothing of it
outlives the process that started it: not a process, and not the folder, which the next one sweeps where a host fell.
"""
