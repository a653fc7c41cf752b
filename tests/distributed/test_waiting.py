"""Time that steps wait for other ranks is added up where it is marked, and nowhere else."""

import time

import torch

from rrcm_dist.distributed.waiting import Waiting

CPU = torch.device("cpu")


def test_marked_places_add_up_until_they_are_taken():
    waiting = Waiting()
    for _ in range(2):
        time.sleep(0.05)
        with waiting.timed(CPU):
            time.sleep(0.02)
    assert 0.04 <= waiting.take() < 0.1
    assert waiting.take() == 0
