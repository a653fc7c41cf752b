"""A real Slurm for the tests of this folder, where this machine can have one; in CI it must."""

import os
from collections.abc import Iterator

import pytest
from slurm_cluster import SlurmCluster
from slurm_daemons import why_no_slurm
from slurm_hosts import why_no_hosts


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skip, and say why, where this machine can have no cluster; fail instead in CI or with RRCM_REQUIRE_SLURM=1."""
    reason = why_no_hosts() or why_no_slurm()
    if reason is None:
        return
    if os.environ.get("CI") == "true" or os.environ.get("RRCM_REQUIRE_SLURM") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm_of_session(slurm_installed: None) -> Iterator[SlurmCluster]:
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_of_session: SlurmCluster) -> SlurmCluster:
    """The session's cluster of two nodes, idle, whatever the test before has done to it."""
    slurm_of_session.tidy()
    return slurm_of_session
