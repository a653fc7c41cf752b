"""What srun starts, once per rank: tells the rank its place in the world, then goes through the door of `rrcm`."""

import os
import signal
import sys
from types import FrameType

from rrcm_dist.cli.door import enter
from rrcm_dist.errors import INTERRUPTED

PLACES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def main() -> None:
    """`python -m cluster.slurm.rank pretrain …` under srun; MASTER_ADDR and MASTER_PORT are set already.

    A rank that was asked to stop, and did, ends with 0 here: srun kills the other ranks as soon as one ends otherwise,
    and they may still be writing their part of the checkpoint. Whether the run is finished, its checkpoint says.
    """
    signal.signal(signal.SIGTERM, _stop_before_training)
    signal.signal(signal.SIGUSR2, _stop)
    os.environ.update({ours: os.environ[slurms] for ours, slurms in PLACES.items()})
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from rrcm_dist.cli.main import build_app

    code: object = 0
    try:
        enter(build_app())
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    number = code if isinstance(code, int) else int(code is not None)
    # Threads of the communication libraries may abort a rank while Python winds down, and hide its exit code.
    os._exit(0 if number == INTERRUPTED else number)


def _stop_before_training(number: int, frame: FrameType | None) -> None:
    """Nothing was trained yet: nothing to keep."""
    os._exit(0)


def _stop(number: int, frame: FrameType | None) -> None:
    """What asks a job to make way (USR2) may be sent to the ranks: it means what SIGTERM means."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
