"""Real photographs (scikit-learn's two), and datasets of shards made of cuttings of them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.data.index import DatasetIndex, load_index
from rrcm_dist.data.order import SampleOrder
from shards.building import Options, build
from shards.image_folder import image_folder

SAMPLES = 53
SIZE = 24


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """Two RGB photographs of 640 × 427 pixels."""
    return [Image.fromarray(image) for image in load_sample_images().images]


def encode(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo_folder(photographs: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 53 cuttings in 6 shards: JPEGs of many sizes, every seventh greyscale, every ninth a PNG."""
    source = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for number in range(SAMPLES):
        image = photographs[number % 2]
        width, height = generator.integers(30, 200, 2).tolist()
        left, top = (generator.integers(0, [image.width - width, image.height - height])).tolist()
        cutting = image.crop((left, top, left + width, top + height))
        folder = source / ("china" if number % 2 == 0 else "flower")
        folder.mkdir(exist_ok=True)
        cutting = cutting.convert("L") if number % 7 == 3 else cutting
        form = "PNG" if number % 9 == 4 else "JPEG"
        (folder / f"cutting_{number}.{form}").write_bytes(encode(cutting, form))
    out = tmp_path_factory.mktemp("shards") / "photographs"
    build(image_folder(source), out, Options("shuffled", 0, 10, None), {"source": "imagefolder"}, jobs=1)
    return out


@pytest.fixture(scope="session")
def photo_index(photo_folder: Path) -> DatasetIndex:
    return load_index(photo_folder)


def make_order(index: DatasetIndex, batch: int = 12, streams: int = 12, seed: int = 5) -> SampleOrder:
    return SampleOrder([shard.samples for shard in index.shards], batch, streams, seed, window=8)


PARTS: dict[str, Any] = {
    "name": "test",
    "output": "runs/test",
    "seed": 5,
    "encoder": {"image_size": SIZE, "patch": 8, "width": 8, "depth": 1, "heads": 1},
    "optimizer": {"lr": 1e-3},
    "training": {"steps": 10, "batch": 12},
}


@pytest.fixture
def pretrain_config() -> Callable[..., PretrainConfig]:
    def make(workers: int = 0, **parts: Any) -> PretrainConfig:
        data = {"train": "shards", "streams": 12, "workers": workers, "prefetch": 2}
        return PretrainConfig.model_validate({**PARTS, "projector": {"hidden": 8}, "data": data, **parts})

    return make


@pytest.fixture
def finetune_config() -> Callable[..., FinetuneConfig]:
    def make(kind: str = "weak", workers: int = 0, **views: Any) -> FinetuneConfig:
        data = {"train": "shards", "streams": 12, "workers": workers, "prefetch": 2}
        method = {"sigma": 0.5, "start_from": None, "classes": 2, "final_norm": True, "consistency": 10.0}
        return FinetuneConfig.model_validate({**PARTS, **method, "data": data, "views": {"kind": kind, **views}})

    return make


@pytest.fixture
def order_of() -> Callable[..., SampleOrder]:
    return make_order


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    return encode
