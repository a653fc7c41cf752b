"""Process 1 of a host in namespaces: reaps orphans, and ends, and with it the host, when standard input does.

Standard input is a pipe from the test session, which the kernel closes however the session ends.
"""

import signal
import sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans leave no zombies
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session
print("ready", flush=True)
sys.stdin.read()
