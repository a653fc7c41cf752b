"""Random numbers are functions of their names, and of nothing in the process."""

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from rrcm_dist.random_streams import NormalStream, Purpose, numpy_generator, seeded_library_state, stream_key

CPU = torch.device("cpu")
NAMES = [
    (Purpose.VIEWS, 0, 1, 23),
    (Purpose.VIEWS, 0, 12, 3),
    (Purpose.VIEWS, 1, 0, 23),
    (Purpose.VIEWS, 0, 1, 23, 0),
    (Purpose.VIEWS, 0, 1.0, 23),
    (Purpose.VIEWS, 0, "1", 23),
    (Purpose.VIEWS, 0, "1", "23"),
    (Purpose.VIEWS, 0, "1\x1fint:23"),
    (Purpose.MIXING, 0, 1, 23),
    (Purpose.TRAINING_NOISE, 2**63 - 1, 10**9),
]


def drawn(name, count=1000):
    return NormalStream(CPU, *name).draw(count)


def test_the_same_name_gives_the_same_numbers_and_another_name_others():
    for name in NAMES:
        assert drawn(name).equal(drawn(name))
    for one, other in itertools.combinations(NAMES, 2):
        assert stream_key(*one) != stream_key(*other), (one, other)
        # Correlation of 1000 independent pairs is beyond 5/sqrt(1000) about once in two million.
        assert abs(np.corrcoef(drawn(one), drawn(other))[0, 1]) < 5 / 1000**0.5, (one, other)


def test_names_give_the_same_numbers_in_every_process():
    script = "from rrcm_dist.random_streams import *; print(stream_key(Purpose.VIEWS, 0, 1, 0.25, 'key'))"
    asked = {"capture_output": True, "text": True, "check": True}
    keys = {
        int(subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, **asked).stdout)
        for seed in ("1", "2")
    }
    assert keys == {stream_key(Purpose.VIEWS, 0, 1, 0.25, "key")}


def test_a_million_streams_do_not_collide():
    keys = {stream_key(Purpose.TRAINING_NOISE, 0, step, stream) for step in range(1000) for stream in range(1000)}
    assert len(keys) == 10**6
    assert len({key & (2**63 - 1) for key in keys}) == 10**6, "what seeds the generator of a GPU"


@pytest.mark.parametrize("cuts", [[1000], [1, 999], [7] * 142 + [6], [1] * 1000])
def test_on_cpu_cutting_a_stream_into_calls_changes_nothing(cuts):
    stream = NormalStream(CPU, Purpose.CERTIFICATION_NOISE, 0, "key", 0.25)
    pieces = torch.cat([stream.draw(count) for count in cuts])
    assert pieces.equal(drawn((Purpose.CERTIFICATION_NOISE, 0, "key", 0.25)))


def test_shapes_and_threads_change_nothing():
    name = (Purpose.TRAINING_NOISE, 3, 4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        image = NormalStream(CPU, *name).draw(2, 3, 8, 8)
    finally:
        torch.set_num_threads(threads)
    assert image.dtype == torch.float32
    assert image.flatten().equal(drawn(name, 2 * 3 * 8 * 8))


def test_the_noise_is_standard_normal():
    """Mean and variance of 10⁶ numbers, within five standard errors; tails as they should be."""
    numbers = drawn((Purpose.CERTIFICATION_NOISE, 0), 10**6).double()
    assert abs(float(numbers.mean())) < 5e-3
    assert abs(float(numbers.var()) - 1) < 5 * 2**0.5 * 1e-3
    beyond_two = float((numbers.abs() > 2).double().mean())
    assert abs(beyond_two - 0.0455003) < 5 * (0.0455 / 10**6) ** 0.5


def test_drawing_leaves_the_processs_own_random_states_alone():
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    drawn(NAMES[0])
    numpy_generator(*NAMES[0]).random(10)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def library_draws():
    return [random.random() for _ in range(5)], np.random.rand(5).tolist(), np.random.randn(3).tolist()


def test_libraries_draw_from_the_stream_that_they_are_lent():
    name = (Purpose.VIEWS, 0, 1)
    with seeded_library_state(*name):
        first = library_draws()
    random.seed(5)
    np.random.seed(5)
    with seeded_library_state(*name):
        assert library_draws() == first
    with seeded_library_state(Purpose.VIEWS, 0, 2):
        assert library_draws() != first


def test_libraries_get_their_own_states_back_also_after_an_error():
    random.seed(5)
    np.random.seed(5)
    np.random.randn()  # leaves half of a pair of normal numbers behind, which is part of the state
    random.gauss()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    expected = library_draws()
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    with pytest.raises(ZeroDivisionError), seeded_library_state(Purpose.VIEWS, 0):
        len(library_draws()) / 0
    assert library_draws() == expected
