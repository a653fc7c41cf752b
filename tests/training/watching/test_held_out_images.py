"""Held-out images that cannot be decoded are left out on every rank; a shard that cannot be read stops all of them."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run_ranks
from tiny import IMAGE_SIZE, finetune_recipe, pretrain_recipe

from rrcm_dist.data.index import load_index
from rrcm_dist.distributed.world import World, join_world
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.training.watching import evaluation
from rrcm_dist.training.watching.evaluation import HeldOutImages
from rrcm_dist.training.watching.knn import KnnEvaluation
from rrcm_dist.training.watching.noisy_accuracy import NoisyAccuracy

COUNT = 41
ALONE = World(0, 1, 0, torch.device("cpu"))


def chosen(samples: int) -> np.ndarray:
    return np.linspace(0, samples - 1, COUNT).round().astype(np.int64)


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> Path:
    """Held-out digits of which the 6th and the last chosen one cannot be decoded."""
    folder = Path(shutil.copytree(digits / "held-out", tmp_path / "damaged"))
    index = load_index(folder)
    for sample in chosen(len(index))[[5, -1]]:
        with open(folder / index.shards[index.shard_of[sample]].name, "r+b") as shard:
            shard.seek(int(index.offset[sample]))
            shard.write(bytes(int(index.length[sample])))
    return folder


def means(noisy: torch.Tensor) -> torch.Tensor:
    return noisy.flatten(1).double().mean(dim=1)


def labels_and_means(folder: Path, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    with join_world("cpu") as world:
        images = HeldOutImages(load_index(folder), COUNT, IMAGE_SIZE, 0, world, workers)
        return images.labels, images.outputs(means, 0.5)


def test_images_that_cannot_be_decoded_are_left_out_and_no_others(digits: Path, damaged: Path, caplog) -> None:
    whole = HeldOutImages(load_index(digits / "held-out"), COUNT, IMAGE_SIZE, 0, ALONE)
    found = HeldOutImages(load_index(damaged), COUNT, IMAGE_SIZE, 0, ALONE, workers=2)
    kept = torch.ones(COUNT, dtype=torch.bool)
    kept[[5, -1]] = False
    assert torch.equal(found.labels, whole.labels[kept])
    assert torch.equal(found.outputs(means, 0.5), whole.outputs(means, 0.5)[kept])
    index = load_index(damaged)
    np.testing.assert_array_equal(whole.labels, index.label[chosen(len(index))])
    assert all(str(key) in caplog.text for key in index.keys[chosen(len(index))[[5, -1]]])


@pytest.mark.distributed
def test_ranks_leave_out_the_same_images(damaged: Path, tmp_path: Path) -> None:
    images = HeldOutImages(load_index(damaged), COUNT, IMAGE_SIZE, 0, ALONE)
    for labels, outputs in run_ranks(labels_and_means, 3, tmp_path / "ranks", damaged, 1):
        assert torch.equal(labels, images.labels)
        assert torch.equal(outputs, images.outputs(means, 0.5))


def what_is_told(folder: Path, shard: int) -> str:
    """Cuts a shard short on rank 1 alone, as on a node whose copy is damaged."""
    with join_world("cpu") as world:
        index = load_index(folder)
        if world.rank == 1:
            own = Path(shutil.copytree(folder, folder.parent / "own"))
            os.truncate(own / index.shards[shard].name, 600)
            index = replace(index, place=str(own))
        with pytest.raises(RunFailure) as error:
            HeldOutImages(index, COUNT, IMAGE_SIZE, 0, world)
        return str(error.value)


@pytest.mark.distributed
def test_a_shard_that_one_rank_cannot_read_stops_all_ranks(digits: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits / "held-out", tmp_path / "copy"))
    last = len(load_index(folder).shards) - 1
    told = run_ranks(what_is_told, 2, tmp_path / "ranks", folder, last)
    assert told[0] == told[1]
    assert "rank 1" in told[0]
    assert f"own/{load_index(folder).shards[last].name}" in told[0]


def test_where_no_image_can_be_decoded_the_run_stops(digits: Path) -> None:
    index = load_index(digits / "held-out")
    with pytest.raises(RunFailure, match="none of 41 images"):
        HeldOutImages(replace(index, crc32=index.crc32 ^ 1), COUNT, IMAGE_SIZE, 0, ALONE)


def test_a_slow_reading_shows_a_bar_on_the_main_rank(digits: Path, monkeypatch, capfd) -> None:
    index = load_index(digits / "held-out")
    HeldOutImages(index, 200, IMAGE_SIZE, 0, ALONE)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(evaluation, "SECONDS_WITHOUT_BAR", 0.0)
    HeldOutImages(index, 200, IMAGE_SIZE, 0, ALONE)
    assert "reading held-out  200/200 images" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("evaluation_of", "recipe_of"), [(KnnEvaluation, pretrain_recipe), (NoisyAccuracy, finetune_recipe)]
)
def test_held_out_images_of_other_classes_are_refused(digits: Path, evaluation_of, recipe_of) -> None:
    train = load_index(digits / "train")
    recipe = recipe_of(digits, Path("unused"))
    evaluation_of(recipe, train, ALONE)
    with pytest.raises(InvalidInput, match="different classes"):
        evaluation_of(recipe, replace(train, classes=train.classes[::-1]), ALONE)
