"""One Ray cluster for the tests of this folder."""

from collections.abc import Iterator

import pytest
from standing_ray import StandingRay, standing_ray


@pytest.fixture(scope="session")
def ray_of_session() -> Iterator[StandingRay]:
    yield from standing_ray()


@pytest.fixture
def ray(ray_of_session: StandingRay) -> StandingRay:
    """The session's cluster of two nodes, whatever the test before has done to it."""
    ray_of_session.tidy()
    return ray_of_session
