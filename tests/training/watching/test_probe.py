"""The probe learns by softmax regression on the global batch, and the run it watches does not notice it."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import pretrain_recipe

from rrcm_dist.config.parts import ProbeConfig
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.watching.probe import LinearProbe

CLASSES, WIDTH, ROWS, STEPS = 5, 8, 24, 12
RATE = 0.05


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Global batches: representations and labels that depend on each other."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    labels = [torch.randint(CLASSES, (ROWS,), generator=generator) for _ in range(STEPS)]
    return [(centres[chosen] + torch.randn(ROWS, WIDTH, generator=generator), chosen) for chosen in labels]


def learn_this_ranks_rows() -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    with join_world("cpu") as world:
        probe = LinearProbe(WIDTH, CLASSES, ProbeConfig(lr=RATE), world)
        rows = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        told = [probe.learn(representations[rows], labels[rows]) for representations, labels in batches()]
        return told, probe.state()


def plain_regression() -> tuple[list[float], list[float], torch.nn.Linear]:
    """The same, written out with torch's own parts on the whole batch."""
    layer = torch.nn.Linear(WIDTH, CLASSES)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, weight_decay=0.0)
    losses, accuracies = [], []
    for representations, labels in batches():
        logits = layer(representations)
        loss = F.cross_entropy(logits, labels)
        losses.append(loss.item())
        accuracies.append((logits.argmax(dim=1) == labels).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, accuracies, layer


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_any_ranks_learn_as_one_does_on_the_whole_batch(ranks, tmp_path):
    results = run_ranks(learn_this_ranks_rows, ranks, tmp_path)
    losses, accuracies, layer = plain_regression()
    assert losses[-1] < 0.8 * losses[0], "it learns"
    for name, expected in (("probe_loss", losses), ("probe_accuracy", accuracies)):
        means = torch.stack([torch.stack([step[name] for step in told]) for told, _ in results]).mean(dim=0)
        torch.testing.assert_close(means, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    for _, state in results:
        torch.testing.assert_close(state["head.weight"], layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state["head.bias"], layer.bias.detach(), rtol=1e-4, atol=1e-5)
    assert all(results[0][1][name].equal(results[-1][1][name]) for name in results[0][1]), "the same on every rank"


def test_a_probe_that_takes_up_a_state_goes_on_to_the_same_bits():
    world = World(0, 1, 0, torch.device("cpu"))
    whole, first, second = (LinearProbe(WIDTH, CLASSES, ProbeConfig(lr=RATE), world) for _ in range(3))
    for number, (representations, labels) in enumerate(batches()):
        whole.learn(representations, labels)
        if number == STEPS // 2:
            second.load({name: tensor.clone() for name, tensor in first.state().items()})
        (first if number < STEPS // 2 else second).learn(representations, labels)
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    assert len(found) == 8
    assert all(expected[name].equal(found[name]) for name in expected)


def trained(shards: Path, output: Path, on: bool) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Weights at the end, and lines of metrics."""
    recipe = pretrain_recipe(shards, output, steps=6, micro_batch=10, checkpoint_every=100, zero_stage=1)
    recipe = recipe.model_copy(update={"probe": ProbeConfig(on=on, lr=0.01)})
    with join_world("cpu") as world:
        outcome = train(prepare_pretraining(recipe, world), world)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    weights = {
        f"{stem}/{name}": tensor
        for stem in ("online", "target")
        for name, tensor in load_file(outcome.checkpoint / f"{stem}.safetensors").items()
    }
    return weights, lines


def test_a_run_is_the_same_to_the_bit_with_and_without_a_probe(digits, tmp_path):
    weights, lines = trained(digits, tmp_path / "with", on=True)
    weights_without, lines_without = trained(digits, tmp_path / "without", on=False)
    assert weights.keys() == weights_without.keys()
    assert all(weights[name].equal(weights_without[name]) for name in weights)
    steps = [line for line in lines if "loss" in line]
    assert [line["loss"] for line in steps] == [line["loss"] for line in lines_without if "loss" in line]
    assert all({"probe_loss", "probe_accuracy"} <= line.keys() for line in steps)
    assert steps[-1]["probe_loss"] < steps[0]["probe_loss"]
    assert not any(name.startswith("probe") for line in lines_without for name in line)
    assert {"probe_sigma_0", "probe_sigma_0.5", "knn_sigma_0"} <= lines[-1].keys()


def test_a_probe_of_other_classes_is_refused_in_words():
    world = World(0, 1, 0, torch.device("cpu"))
    probe, other = (LinearProbe(WIDTH, classes, ProbeConfig(lr=RATE), world) for classes in (CLASSES, CLASSES + 1))
    with pytest.raises(InvalidInput, match=r"for 6 classes of width 8, and here are 5"):
        probe.load(other.state())
