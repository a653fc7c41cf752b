"""A rank's place in the world, by the variables that torch knows it by, from those that srun sets."""

import os

PLACES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def take_place_from_srun() -> None:
    """Set them in this process's environment."""
    os.environ.update({ours: os.environ[slurms] for ours, slurms in PLACES.items()})
