"""Certified training through the loop: learns what it certifies, resumes to the bit, on any ranks the same run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import rrcm
from ranks import run_ranks
from safetensors.torch import load_file
from tiny_ibp import ibp_recipe

from rrcm_dist.config.ibp import IbpConfig, IbpNetworkConfig, RegularizersConfig
from rrcm_dist.config.ibp_estimate import network_parameters
from rrcm_dist.config.load import dump_recipe, load_recipe
from rrcm_dist.data.batches import LabelledBatch
from rrcm_dist.data.index import load_index
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.loading import load_ibp_classifier
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.verification import verified_margins
from rrcm_dist.training.ibp import prepare_ibp
from rrcm_dist.training.ibp_step import EpsilonRamp, IbpStep
from rrcm_dist.training.loop import Outcome, train

ROUNDING = 1e-4


def run_here(recipe: IbpConfig) -> Outcome:
    with join_world("cpu") as world:
        return train(prepare_ibp(recipe, world), world)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip() / "model.safetensors")


def metrics_of(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def alone(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one rank, over the whole of ε's ramp."""
    folder = tmp_path_factory.mktemp("ibp") / "alone"
    run_here(ramped(digits, folder))
    return folder


def ramped(digits: Path, output: Path, **training: object) -> IbpConfig:
    """Five epochs of eleven steps: one clean, two of the ramp, two at the target."""
    recipe = ibp_recipe(digits, output, steps=None, epochs=5, batch=120, checkpoint_every=8, **training)
    schedule = recipe.epsilon.model_copy(update={"clean_epochs": 1, "ramp_epochs": 2})
    return recipe.model_copy(update={"epsilon": schedule})


def test_training_goes_from_clean_to_certified(alone: Path) -> None:
    epsilons, weights = metrics_of(alone, "epsilon"), metrics_of(alone, "tightness")
    assert epsilons[:11] == [0.0] * 11
    assert epsilons == sorted(epsilons)
    assert epsilons[-22:] == pytest.approx([0.05] * 22)
    assert max(weights[:11]) > 0
    assert weights[-22:] == [0.0] * 22
    losses = metrics_of(alone, "robust_cross_entropy")
    assert losses[-1] < losses[34]
    clean, verified = metrics_of(alone, "held_out_clean_error"), metrics_of(alone, "held_out_verified_error")
    assert len(clean) == 5
    assert all(one <= other for one, other in zip(clean, verified, strict=True))


@pytest.mark.parametrize("into", [0, 1, 2, 50])
def test_tightness_is_felt_from_the_first_steps_of_a_published_ramp(into: int, digits: Path, tmp_path: Path) -> None:
    published = load_recipe("cifar10/ibp-cnn7", kind="train-ibp").epsilon
    ramp = EpsilonRamp(published.target, published.clean_epochs * 391, published.ramp_epochs * 391)
    images = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8).expand(24, 3, 8, 8)
    batch = LabelledBatch(images, torch.arange(24) % 10, torch.arange(24), [""] * 24, torch.arange(24), 0)
    gradients = []
    with join_world("cpu") as world:
        for wanted in (True, False):
            recipe = ibp_recipe(digits, tmp_path)
            chosen = RegularizersConfig(tightness=wanted, balance=False, tolerance=100.0, weight=1e3)
            step = IbpStep(recipe.model_copy(update={"regularizers": chosen}), world, ramp)
            parts = step.backward(batch, ramp.start + into)
            gradients.append(torch.cat([p.grad.flatten() for p in step.engine.network.parameters()]))
    assert 0 <= parts["epsilon"] < 1e-6
    assert gradients[0].isfinite().all()
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[1].norm()


def test_a_resumed_run_ends_as_if_nothing_had_happened(alone: Path, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(alone, run)
    newest = sorted((run / "checkpoints").glob("step-*"))
    for checkpoint in newest[1:]:
        shutil.rmtree(checkpoint)
    assert run_here(ramped(digits, run)).step == 55
    expected, found = weights_of(alone), weights_of(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def train_as_rank(recipe: IbpConfig) -> None:
    run_here(recipe)


@pytest.mark.parametrize(("ranks", "stage"), [(2, 0), (3, 2)])
def test_several_ranks_and_stages_train_the_same_network(ranks: int, stage: int, digits: Path, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    run_here(ibp_recipe(digits, one, {"kind": "wide_resnet", "stem": 2, "width": 2}, steps=4))
    recipe = ibp_recipe(digits, several, {"kind": "wide_resnet", "stem": 2, "width": 2}, steps=4, zero_stage=stage)
    run_ranks(train_as_rank, ranks, tmp_path / "ranks", recipe)
    for name in ("loss", "tightness", "balance", "verified_error"):
        assert metrics_of(several, name) == pytest.approx(metrics_of(one, name), rel=ROUNDING, abs=1e-6)
    # Not weight by weight: at so large a loss some of the last layer's weights have gradients of rounding alone (1e-10,
    # where others have 0), of which Adam makes whole steps.
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    margins = [verified_margins(load_ibp_classifier(run, "cpu"), images, labels, 0.01) for run in (one, several)]
    torch.testing.assert_close(*margins, rtol=1e-3, atol=1e-3)


def test_a_trained_network_is_read_back_and_gives_the_logged_error(alone: Path, digits: Path) -> None:
    network = load_ibp_classifier(alone, "cpu")
    assert network.recipe is not None
    assert network.recipe.output == str(alone)
    assert not network.training
    index = load_index(str(digits / "held-out"))
    chosen = np.unique(np.linspace(0, len(index) - 1, 50).round().astype(np.int64))
    parts = list(evaluation_images(index, 8, chosen))
    images = network_pixels(torch.cat([part.images for part in parts]), 1, torch.device("cpu"))
    labels = torch.cat([part.labels for part in parts])
    unverified = (verified_margins(network, images, labels, 0.05) <= 0).float().mean().item()
    assert metrics_of(alone, "held_out_verified_error")[-1] == pytest.approx(unverified)


def test_what_is_no_network_of_bounds_is_refused_in_words(alone: Path, tmp_path: Path) -> None:
    from rrcm_dist.models.checkpoint_files import require_own, weights_file

    with pytest.raises(InvalidInput, match="there is no"):
        load_ibp_classifier(tmp_path / "nothing", "cpu")
    with pytest.raises(InvalidInput, match="rrcm verify"):
        require_own(weights_file(alone, "model"))
    foreign = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(InvalidInput, match="train-ibp"):
        load_ibp_classifier(foreign, "cpu")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["epsilon.target=1.5"], "epsilon.target"),
        (["epsilon.target=0"], "epsilon.target"),
        (["training.precision=bf16"], "training.precision"),
        (["training.zero_stage=3"], "training.zero_stage"),
        (["training.micro_batch=4"], "micro_batch"),
        (["classes=7"], "classes is 7"),
        (["epsilon.ramp_epochs=9"], "ε reaches its target"),
        (["network.mean=[0.1,0.2]"], "mean has 2 numbers"),
        (["network.width=0"], "network.width"),
        (["epsilon.targt=1"], "epsilon.target"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_is_written(
    overrides, told, digits, tmp_path, monkeypatch, capsys
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(ibp_recipe(digits, tmp_path / "run")))
    code, _, error = rrcm(monkeypatch, capsys, "train-ibp", file, *overrides, "--device", "cpu")
    assert (code, "Traceback" in error) == (2, False)
    assert told in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["cnn7", "wide_resnet", "resnext"])
@pytest.mark.parametrize("size", [8, 9])
def test_parameters_are_counted_exactly(kind: str, size: int, digits: Path, tmp_path: Path) -> None:
    own = {"cnn7": {}, "wide_resnet": {"stem": 5, "blocks": 2}, "resnext": {"stem": 5, "blocks": 2, "groups": 3}}
    network = {"kind": kind, "image_size": size, "width": 4, **own[kind]}
    recipe = ibp_recipe(digits, tmp_path, network)
    built = IbpNetwork(IbpNetworkConfig.model_validate(recipe.network.model_dump()), 10)
    assert network_parameters(recipe) == sum(parameter.numel() for parameter in built.parameters())


def test_colours_are_not_taken_for_grey() -> None:
    grey = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8).expand(2, 3, 4, 4)
    assert network_pixels(grey, 1, torch.device("cpu")).shape == (2, 1, 4, 4)
    with pytest.raises(InvalidInput, match=r"network\.channels=3"):
        network_pixels(torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8), 1, torch.device("cpu"))
