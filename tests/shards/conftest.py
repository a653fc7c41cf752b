"""Real images and a real dataset to build from and to damage."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building import Built, Options, build
from shards.image_folder import image_folder
from shards.images import Resize


def photograph(number: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """A smooth RGB picture, another for each number."""
    small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.fixture
def make_photograph() -> Callable[..., Image.Image]:
    return photograph


@pytest.fixture
def source_folder(tmp_path: Path) -> Path:
    """Three classes with 10, 11 and 12 JPEGs."""
    folder = tmp_path / "source"
    for label, name in enumerate(("cat", "dog", "fish")):
        (folder / name).mkdir(parents=True)
        for number in range(10 + label):
            (folder / name / f"{name}_{number}.JPEG").write_bytes(jpeg(photograph(100 * label + number)))
    return folder


@pytest.fixture
def build_folder() -> Callable[..., Built]:
    """Build a folder of images as the command does."""

    def run(
        source: Path,
        out: Path,
        order: str = "shuffled",
        seed: int = 0,
        samples_per_shard: int = 10,
        resize: Resize | None = None,
        jobs: int = 1,
        force: bool = False,
    ) -> Built:
        options = Options(order, seed, samples_per_shard, resize)
        return build(image_folder(source), out, options, {"source": "imagefolder"}, jobs, force)

    return run


@pytest.fixture
def dataset(source_folder: Path, tmp_path: Path, build_folder: Callable[..., Built]) -> Path:
    """A sound dataset of 33 samples in 4 shards."""
    build_folder(source_folder, tmp_path / "dataset")
    return tmp_path / "dataset"
