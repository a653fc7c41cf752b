"""Paths of published logs state the noise level and the family of a run."""

from pathlib import Path

import pytest

from rrcm_dist.reporting.reading.names import family_in_path, sigma_in_path


@pytest.mark.parametrize(
    ("path", "sigma", "family"),
    [
        ("cohen_cifar10-resnet110-noise_0.25-test-sigma_0.25.tsv", 0.25, "cohen_cifar10-resnet110"),
        ("jeong_cifar10-noise_0.50.tsv", 0.5, "jeong_cifar10"),
        ("sigma=1.0.tsv", 1.0, "here"),
        ("resnet110/noise_0.50/test/sigma_0.50", 0.5, "resnet110"),
        ("resnet110/noise_0.50/test/sigma_0.25", 0.25, "resnet110 noise_0.50"),
        ("denoised/noise_sd_0.12.txt", 0.12, "denoised"),
    ],
)
def test_sigma_and_family_are_read_from_a_path(path, sigma, family):
    path = Path("/somewhere/here") / path
    assert sigma_in_path(path) == sigma
    assert family_in_path(path, sigma) == family


def test_a_path_without_a_noise_level_states_none():
    assert sigma_in_path(Path("/data/model/certificates.tsv")) is None
