"""Shared by all tests: few threads, so that tests that start several processes stay quick on small machines."""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from tiny import build_digits

# Shells have what they start in the background ignore Ctrl-C, which tests send; processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of 16×16 digits: train/ and held-out/."""
    return build_digits(tmp_path_factory.mktemp("digits"))
