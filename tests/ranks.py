"""Run a function as several gloo ranks, in real processes."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SECONDS = 300


def run_ranks(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """Results of `function(*arguments)`, a module's function, as each of `ranks` ranks of one world."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_be_rank, args=(function, rank, ranks, port, folder, arguments)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * ranks, f"exit codes of the ranks: {codes}"
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(ranks)]


def _be_rank(
    function: Callable[..., Any], rank: int, ranks: int, port: int, folder: Path, arguments: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    torch.save(function(*arguments), folder / f"result-{rank}.pt")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the process group sometimes abort an ordinary end, after all is done
