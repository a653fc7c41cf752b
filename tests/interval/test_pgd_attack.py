"""The attack finds images in the ball, never beats a certificate, and does not depend on batches."""

import pytest
import torch
from interval_networks import CONFIGS, images_and_labels, small_network
from torch import nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.attack import pgd_margins
from rrcm_dist.interval.verification import verified_margins


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_attack_goes_below_the_certificate(kind: str) -> None:
    network = small_network(kind)
    images, labels = images_and_labels(kind)
    for epsilon in (0.0, 0.003, 0.1, 1.0):
        attacked = pgd_margins(network, images, labels, epsilon, steps=5, restarts=2, seeds=range(3))
        certified = verified_margins(network, images, labels, epsilon)
        assert (attacked >= certified - 1e-4).all()


def test_of_a_linear_classifier_the_attack_finds_the_least_margin() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    images, labels = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0])
    attacked = pgd_margins(network, images, labels, 0.1, steps=10, restarts=1, seeds=range(5))
    torch.testing.assert_close(attacked, verified_margins(network, images, labels, 0.1))


def test_an_images_attack_does_not_depend_on_its_batch() -> None:
    network = small_network("cnn7").double()
    images, labels = images_and_labels("cnn7", count=4)
    settings = {"epsilon": 0.05, "steps": 4, "restarts": 2}
    together = pgd_margins(network, images.double(), labels, **settings, seeds=[7, 8, 9, 10])
    alone = pgd_margins(network, images[2:3].double(), labels[2:3], **settings, seeds=[9])
    torch.testing.assert_close(together[2:3], alone)
    other = pgd_margins(network, images[2:3].double(), labels[2:3], **settings, seeds=[10])
    assert not torch.equal(other, alone)


def test_the_attack_leaves_modes_and_gradients_of_the_network_alone() -> None:
    network = small_network("cnn7").train()
    images, labels = images_and_labels("cnn7")
    pgd_margins(network, images, labels, 0.05, steps=2, restarts=1, seeds=range(3))
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_each_image_needs_a_seed() -> None:
    images, labels = images_and_labels("cnn7")
    with pytest.raises(InvalidInput, match="seeds"):
        pgd_margins(small_network("cnn7"), images, labels, 0.1, steps=1, restarts=1, seeds=[1])
