"""What is measured, beside a peer or a limit, in one run. `python -m benchmarks` lists and runs it."""
