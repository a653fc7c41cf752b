"""Bounds hold, are as tight as interval arithmetic can be, and are refused where they are not known."""

import itertools

import numpy as np
import pytest
import torch
from interval_networks import CONFIGS, images_and_labels, lived_in, small_network
from interval_reference import interval_ends
from torch import nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.bounds import Box, Signal, pixel_box, relu_box
from rrcm_dist.interval.layers import Normalize, Residual
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.propagation import propagate
from rrcm_dist.interval.verification import verified_margins

EPSILON = 0.003


def _box(network: nn.Module, box: Box) -> Box:
    with torch.no_grad():
        signal = propagate(network, Signal(box=box), "")
    assert signal.box is not None
    return signal.box


def _pooling_network() -> nn.Module:
    torch.manual_seed(0)
    return lived_in(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.MaxPool2d(2),
            Residual(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Identity()),
            nn.AvgPool2d(2),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 4),
        )
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_boxes_are_those_of_number_by_number_interval_arithmetic(kind: str) -> None:
    network = small_network(kind)
    images, _ = images_and_labels(kind, count=1)
    box = _box(network.layers, pixel_box(images, EPSILON))
    ends = [np.clip(images[0].double().numpy() + sign * EPSILON, 0, 1) for sign in (-1, 1)]
    lower, upper = interval_ends(network.layers, *ends)
    np.testing.assert_allclose(box.lower[0].numpy(), lower, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(box.upper[0].numpy(), upper, rtol=1e-5, atol=1e-5)


def test_boxes_through_pooling_and_dropout_are_those_of_interval_arithmetic() -> None:
    network, image = _pooling_network(), torch.rand(1, 1, 8, 8)
    box = _box(network, pixel_box(image, EPSILON))
    lower, upper = interval_ends(
        nn.Sequential(*[layer for layer in network if not isinstance(layer, nn.Dropout)]),
        *[np.clip(image[0].double().numpy() + sign * EPSILON, 0, 1) for sign in (-1, 1)],
    )
    np.testing.assert_allclose(box.lower[0].numpy(), lower, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(box.upper[0].numpy(), upper, rtol=1e-5, atol=1e-6)


def test_of_one_linear_layer_the_certificate_is_the_least_margin_over_all_corners() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    images, labels = torch.rand(4, 1, 2, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    least = torch.full((4,), float("inf"), dtype=torch.float64)
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        corners = (images + EPSILON * torch.tensor(signs).view(1, 1, 2, 3)).clamp(0, 1)
        logits = network(corners).detach()
        for row, label in enumerate(labels.tolist()):
            others = torch.cat([logits[row, :label], logits[row, label + 1 :]])
            least[row] = torch.minimum(least[row], logits[row, label] - others.max())
    torch.testing.assert_close(verified_margins(network, images, labels, EPSILON), least)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_image_of_the_ball_has_a_margin_below_its_certificate(kind: str) -> None:
    network = small_network(kind)
    images, labels = images_and_labels(kind)
    certified = verified_margins(network, images, labels, EPSILON)
    generator = torch.Generator().manual_seed(2)
    for draw in range(300):
        noise = torch.rand(images.shape, generator=generator) * 2 - 1
        noise = noise.sign() if draw % 2 else noise
        logits = network((images + EPSILON * noise).clamp(0, 1)).detach()
        margins = logits.gather(1, labels[:, None]) - logits
        margins.scatter_(1, labels[:, None], float("inf"))
        assert (margins.amin(dim=1) >= certified - 1e-5).all()


def test_bounds_hold_through_averages_and_normalisations_of_negative_divisors() -> None:
    torch.manual_seed(0)
    average = nn.AvgPool2d(2, divisor_override=-3)
    network = nn.Sequential(Normalize((0.5,), (-0.4,)), average, nn.Flatten(), nn.Linear(9, 3)).eval()
    images, labels = torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    for part in (network[:1], network[:2]):
        box = _box(part, pixel_box(images, 0.1))
        for _ in range(50):
            values = part((images + 0.1 * torch.empty_like(images).uniform_(-1, 1)).clamp(0, 1))
            assert (values >= box.lower - 1e-6).all()
            assert (values <= box.upper + 1e-6).all()
    certified = verified_margins(network, images, labels, 0.1)
    for _ in range(300):
        logits = network((images + 0.1 * torch.empty_like(images).uniform_(-1, 1).sign()).clamp(0, 1)).detach()
        margins = (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], float("inf"))
        assert (margins.amin(dim=1) >= certified - 1e-5).all()


def test_at_epsilon_zero_the_certificate_is_the_margin() -> None:
    network = small_network("cnn7")
    images, labels = images_and_labels("cnn7")
    logits = network(images).detach()
    margins = logits.gather(1, labels[:, None]) - logits
    margins.scatter_(1, labels[:, None], float("inf"))
    torch.testing.assert_close(verified_margins(network, images, labels, 0.0), margins.amin(dim=1))


def test_the_margins_bound_is_tighter_than_the_difference_of_bounds() -> None:
    network = small_network("cnn7")
    images, labels = images_and_labels("cnn7")
    box = _box(network.layers, pixel_box(images, EPSILON))
    upper = box.upper.scatter(1, labels[:, None], -float("inf"))
    apart = box.lower.gather(1, labels[:, None])[:, 0] - upper.amax(dim=1)
    merged = verified_margins(network, images, labels, EPSILON)
    assert (merged >= apart - 1e-5).all()
    assert (merged > apart + 0.01).any()


def test_the_ball_ends_at_black_and_white_and_a_tiny_one_keeps_its_width() -> None:
    images = torch.tensor([0.0, 1e-7, 0.5, 1.0]).view(1, 1, 2, 2)
    box = pixel_box(images, 0.1)
    assert box.lower.min() >= 0
    assert box.upper.max() <= 1
    torch.testing.assert_close(pixel_box(images, 1e-9).radius[0, 0, 1], torch.tensor([1e-9, 5e-10]))


def test_relu_keeps_active_clears_inactive_and_cuts_the_others() -> None:
    box = relu_box(Box(torch.tensor([2.0, -2.0, 0.5, -0.5]), torch.ones(4)))
    torch.testing.assert_close(box.lower, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(box.upper, torch.tensor([3.0, 0.0, 1.5, 0.5]))


def test_a_layer_without_bounds_is_named_with_its_place() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 4), nn.GELU()), nn.Linear(4, 2))
    with pytest.raises(InvalidInput, match=r"GELU, layer 1\.1"):
        verified_margins(network, torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1)
    inner = nn.Sequential(Residual(nn.Sequential(nn.Sigmoid()), nn.Identity()), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InvalidInput, match=r"Sigmoid, layer 0\.main\.0"):
        verified_margins(inner, torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1)


def test_a_subclass_of_a_known_layer_is_not_trusted() -> None:
    class Leaky(nn.ReLU):
        pass

    with pytest.raises(InvalidInput, match="Leaky"):
        verified_margins(
            nn.Sequential(nn.Flatten(), Leaky(), nn.Linear(4, 2)), torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1
        )


def test_what_cannot_be_bounded_is_refused_in_words() -> None:
    images, labels = torch.rand(1, 1, 2, 2), torch.tensor([0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    for epsilon in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="epsilon"):
            verified_margins(network, images, labels, epsilon)
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        verified_margins(network, images + 1, labels, 0.1)
    with pytest.raises(InvalidInput, match="ReLU"):
        verified_margins(nn.Sequential(*network, nn.ReLU()), images, labels, 0.1)
    without = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    with pytest.raises(InvalidInput, match="BatchNorm1d, layer 1"):
        verified_margins(without, images, labels, 0.1)


def test_verification_leaves_the_modes_of_a_network_as_they_were() -> None:
    network = small_network("cnn7").train()
    network.layers[2].eval()
    images, labels = images_and_labels("cnn7")
    verified_margins(network, images, labels, EPSILON)
    assert network.training
    assert not network.layers[2].training


def test_a_layer_that_stands_in_several_places_counts_in_each() -> None:
    torch.manual_seed(0)
    relu, parts = nn.ReLU(), [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    shared = nn.Sequential(nn.Flatten(), parts[0], relu, parts[1], relu, parts[2])
    apart = nn.Sequential(nn.Flatten(), parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2])
    images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    margins = [verified_margins(network, images, labels, 0.1) for network in (shared, apart)]
    assert torch.equal(*margins)


def _negated(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    return -output


@pytest.mark.parametrize(
    ("place", "told"), [("", r"the network itself"), ("1", r"Sequential, layer 1,"), ("1.0", r"Linear, layer 1\.0,")]
)
def test_what_computes_more_than_its_class_says_is_not_trusted(place: str, told: str) -> None:
    images, labels = torch.rand(1, 1, 2, 2), torch.tensor([0])
    for altered in ("register_forward_hook", "register_forward_pre_hook", "forward"):
        network = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
        module = network.get_submodule(place)
        if altered == "forward":
            module.forward = torch.neg
        else:
            getattr(module, altered)(_negated)
        with pytest.raises(InvalidInput, match=f"{told}.* has "):
            verified_margins(network, images, labels, 0.1)


def test_a_network_of_ours_with_a_hook_or_of_a_subclass_is_not_trusted() -> None:
    class Other(IbpNetwork):
        pass

    images, labels = images_and_labels("cnn7")
    hooked = small_network("cnn7")
    hooked.register_forward_hook(_negated)
    for network, told in ((hooked, "forward hooks"), (Other(CONFIGS["cnn7"], 4), "Other")):
        with pytest.raises(InvalidInput, match=told):
            verified_margins(network, images, labels, EPSILON)


def test_bounds_are_in_whole_float32_whatever_they_are_called_within() -> None:
    network = small_network("cnn7")
    images, labels = images_and_labels("cnn7")
    expected = verified_margins(network, images, labels, EPSILON)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(verified_margins(network, images, labels, EPSILON), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
