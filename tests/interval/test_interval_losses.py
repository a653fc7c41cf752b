"""Initialisation, regularisers, loss and schedules are the paper's, and ranks change nothing of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from interval_networks import CONFIGS
from ranks import run_ranks
from torch import nn
from torch.nn import functional as F

from rrcm_dist.config.ibp import IbpNetworkConfig
from rrcm_dist.distributed.collectives import own_rank, ranks
from rrcm_dist.distributed.world import join_world
from rrcm_dist.interval.bounds import Box
from rrcm_dist.interval.initialization import initialize
from rrcm_dist.interval.layers import Residual
from rrcm_dist.interval.margins import margin_cross_entropy
from rrcm_dist.interval.networks import BoundedBatch, IbpNetwork
from rrcm_dist.interval.regularizers import balance, tightness
from rrcm_dist.interval.schedule import epsilon_at, stepped_rate

ROWS = 12


def test_the_initialisation_is_scaled_by_fan_in_halved_after_a_sum_and_leaves_the_last_layer() -> None:
    torch.manual_seed(0)
    main = nn.Sequential(nn.Conv2d(40, 40, 3, padding=1))
    last = nn.Linear(400, 10)
    before = last.weight.clone()
    network = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), Residual(main, nn.Identity()), nn.ReLU(),
        nn.Conv2d(40, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(160, 400), nn.ReLU(), last,
    )  # fmt: skip
    initialize(network)
    expected = {0: 3 * 9, 4: 40 * 9 * 2, 7: 160}
    for place, fan_in in {**expected, 2: 40 * 9}.items():
        layer = network[place].main[0] if place == 2 else network[place]
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.05)
    assert torch.equal(last.weight, before)


def test_without_batch_norm_initialised_bounds_keep_their_width_and_torchs_grow() -> None:
    widths = {}
    for initialization in ("ibp", "torch"):
        config = IbpNetworkConfig(
            image_size=16, channels=3, width=16, hidden=64, batch_norm=False, initialization=initialization
        )
        images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        bounded = IbpNetwork(config, 10)(images, torch.zeros(8, dtype=torch.long), 0.01)
        widths[initialization] = [box.radius.mean().item() for box in bounded.relu_inputs]
    assert 0.3 < widths["ibp"][-1] / widths["ibp"][0] < 3
    assert widths["torch"][-1] / widths["torch"][0] > 30


def test_regularisers_are_the_papers_formulas() -> None:
    torch.manual_seed(0)
    boxes = [Box(torch.randn(6, 5) + shift, torch.rand(6, 5) * width) for shift, width in ((0.3, 0.5), (-1, 2))]
    pixels = Box(torch.rand(6, 3), torch.rand(6, 3) * 0.1)
    tau, tight, uneven = 0.5, [], []
    for box in boxes:
        centre, radius = box.centre.double().numpy(), box.radius.double().numpy()
        tight.append(max(0, tau - pixels.radius.double().mean().item() / radius.mean()))
        on, off = centre - radius > 0, centre + radius < 0
        a = -centre[on].sum() / centre[off].sum()
        distances = (centre - centre.mean()) ** 2
        b = distances[on].sum() / distances[off].sum()
        uneven.append(sum(max(0, tau - min(ratio, 1 / ratio)) for ratio in (a, b)))
    assert tightness(pixels, boxes, tau).item() == pytest.approx(np.mean(tight) / tau, rel=1e-5)
    assert balance(boxes, tau).item() == pytest.approx(np.mean(uneven) / tau, rel=1e-5)
    assert min(tight) > 0
    assert max(uneven) > 0


def test_a_layer_that_is_all_active_costs_the_most_and_its_gradient_is_finite() -> None:
    centre = torch.full((3, 2), 2.0, requires_grad=True)
    cost = balance([Box(centre, torch.ones(3, 2))], 0.5)
    cost.backward()
    assert cost.item() >= 1
    assert centre.grad is not None
    assert torch.isfinite(centre.grad).all()


def test_the_loss_is_the_cross_entropy_of_the_worst_logits() -> None:
    margins = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.0, 0.5]])
    labels = torch.tensor([0, 1])
    expected = sum(math.log(sum(math.exp(-margin) for margin in row)) for row in margins.tolist()) / 2
    assert margin_cross_entropy(margins, labels).item() == pytest.approx(expected)


def test_epsilon_grows_by_a_fourth_power_then_evenly_and_smoothly_where_they_meet() -> None:
    at = [epsilon_at(step, 1.0, 100, 400) for step in range(700)]
    assert at[:101] == [0.0] * 101
    assert at[500:] == [1.0] * 200
    assert at == sorted(at)
    assert at[200] == pytest.approx(1 / 13)  # value and slope join at a quarter: 1 / (1 + 4 · 3)
    assert at[150] == pytest.approx(at[200] / 16)
    slopes = np.diff(at)
    assert slopes[199] == pytest.approx(slopes[200], rel=0.02)
    np.testing.assert_allclose(slopes[200:499], slopes[200], rtol=1e-6)
    assert epsilon_at(0, 0.3, 0, 0) == 0.3
    assert epsilon_at(0, 0.3, 0, 3) == 0.0
    assert epsilon_at(4, 0.3, 5, 0) == 0.0


def test_the_learning_rate_falls_at_its_milestones() -> None:
    rates = [stepped_rate(step, 1.0, [2, 4], 0.2) for step in range(6)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def _loss(bounded: BoundedBatch, labels: torch.Tensor) -> torch.Tensor:
    assert bounded.margins is not None
    assert bounded.pixels is not None
    robust = margin_cross_entropy(bounded.margins, labels)
    regularizers = tightness(bounded.pixels, bounded.relu_inputs, 0.9) + balance(bounded.relu_inputs, 0.9)
    return robust + F.cross_entropy(bounded.logits, labels) + regularizers


Result = tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]


def _in_a_world() -> list[Result]:
    with join_world("cpu"):
        return [_loss_and_gradients(kind) for kind in ("cnn7", "wide_resnet")]


def _loss_and_gradients(kind: str) -> Result:
    """Loss, gradients and buffers of a rank's rows; without a process group, of all."""
    images = torch.rand(ROWS, CONFIGS[kind].channels, 6, 6, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(ROWS) % 4
    rows = slice(own_rank() * ROWS // ranks(), (own_rank() + 1) * ROWS // ranks())
    network = IbpNetwork(CONFIGS[kind], 4).double()
    loss = _loss(network(images[rows].double(), labels[rows], 0.01), labels[rows])
    loss.backward()
    buffers = [buffer.clone() for buffer in network.buffers()]
    return loss.detach(), [p.grad for p in network.parameters() if p.grad is not None], buffers


@pytest.mark.parametrize("count", [2, 3, 4])
def test_loss_and_gradients_of_several_ranks_are_those_of_one(count: int, tmp_path: Path) -> None:
    results = run_ranks(_in_a_world, count, tmp_path)
    for number, kind in enumerate(("cnn7", "wide_resnet")):
        together, alone = [result[number] for result in results], _loss_and_gradients(kind)
        torch.testing.assert_close(sum(loss for loss, _, _ in together) / count, alone[0])
        for place, gradient in enumerate(alone[1]):
            torch.testing.assert_close(sum(gradients[place] for _, gradients, _ in together) / count, gradient)
        for place, buffer in enumerate(alone[2]):
            torch.testing.assert_close(together[-1][2][place], buffer)


def test_batch_norm_of_the_clean_batch_is_torchs_own() -> None:
    network = IbpNetwork(CONFIGS["cnn7"], 4)
    assert all(module.training for module in network.modules())
    images = torch.rand(ROWS, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    reference = IbpNetwork(CONFIGS["cnn7"], 4)
    bounded = network(images, torch.zeros(ROWS, dtype=torch.long), 0.01)
    torch.testing.assert_close(bounded.logits, reference(images), rtol=1e-4, atol=1e-5)
    for own, torchs in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, torchs)
