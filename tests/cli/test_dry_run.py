"""`--dry-run` counts the samples of the shards where they are here, quickly and without training anything."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.config.load import dump_recipe
from rrcm_dist.data.index import load_index

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from rrcm_dist.cli.main import main; main()"


def dry_run(kind: str, *arguments: object) -> str:
    """What is printed, by a Python that has no torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, kind, *map(str, arguments), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(page: str, what: str) -> str:
    return next(line for line in page.splitlines() if line.strip().startswith(f"{what}  "))


@pytest.mark.parametrize("recipe_of", [pretrain_recipe, finetune_recipe])
def test_steps_of_an_epoch_are_those_of_the_shards(recipe_of, digits: Path, tmp_path: Path) -> None:
    samples = len(load_index(digits / "train"))
    recipe, file = recipe_of(digits, tmp_path / "run", steps=None, epochs=3), tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    page = dry_run(recipe.kind, file)
    assert row(page, "steps").split()[1] == str(3 * (samples // 24))
    assert f"{samples:,} images" in row(page, "steps")
    absent = row(dry_run(recipe.kind, file, "data.train=elsewhere"), "steps")
    assert "unknown" in absent or "assuming CIFAR-10, 50,000 images" in absent
    assert not (tmp_path / "run").exists()


def test_images_to_certify_are_those_of_the_shards(digits: Path) -> None:
    samples = len(load_index(digits / "held-out"))
    everything = ("cifar10/certify-b", "images={every: 2}")
    assert row(dry_run("certify", *everything, f"data={digits / 'held-out'}"), "images").split()[1] == str(samples // 2)
    assert "unknown" in row(dry_run("certify", *everything, "data=elsewhere"), "images")


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format": "rrcm-shards", "ver')
    command = [sys.executable, "-c", WITHOUT_TORCH, "certify", "cifar10/certify-b", f"data={tmp_path}", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "index.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr
