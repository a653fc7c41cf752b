"""A Ray cluster for the tests of each file: idle, it would cost the others a good part of a core."""

from collections.abc import Iterator

import pytest
from standing_ray import StandingRay, standing_ray


@pytest.fixture(scope="module")
def ray_of_file() -> Iterator[StandingRay]:
    yield from standing_ray()


@pytest.fixture
def ray(ray_of_file: StandingRay) -> StandingRay:
    """The file's cluster of two nodes, whatever the test before has done to it."""
    ray_of_file.tidy()
    return ray_of_file
