"""Starts a module of the benchmarks as several ranks of this machine, each a fresh process, and takes their results."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

SECONDS = 480


def run_ranks(module: str, arguments: list[str], ranks: int, threads: int = 1) -> list[Any]:
    """What `python -m module …` printed last as JSON, as each of `ranks` ranks; stops the benchmark where one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", module, *arguments]
    processes = [
        subprocess.Popen(command, env=_environment(rank, ranks, port, threads), stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        sys.exit(f"the ranks of {module} failed: exit codes {[process.returncode for process in processes]}")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def finish(result: Any) -> None:
    """Hand a rank's result to `run_ranks` and end the process."""
    print(json.dumps(result), flush=True)
    os._exit(0)  # threads of the process group sometimes abort an ordinary end, after all is done


def _environment(rank: int, ranks: int, port: int, threads: int) -> dict[str, str]:
    place = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    quiet = {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore::FutureWarning"}
    return {**os.environ, **{key: str(value) for key, value in place.items()}, **quiet}
