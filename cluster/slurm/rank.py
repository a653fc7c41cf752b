"""What srun starts, once per rank: tells the rank its place in the world, then goes through the door of `rrcm`."""

import signal

from cluster.rank_door import go_through
from cluster.rank_place import take_place_from_srun


def main() -> None:
    """`python -m cluster.slurm.rank pretrain …` under srun; MASTER_ADDR and MASTER_PORT are set already.

    srun kills the other ranks as soon as one ends otherwise than with 0, and they may still be writing their part of
    the checkpoint. What asks a job to make way (USR2) may be sent to the ranks, too.
    """
    take_place_from_srun()
    go_through(signal.SIGUSR2)


if __name__ == "__main__":
    main()
