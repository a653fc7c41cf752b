"""The recipe and the order that the loader's benchmarks read a dataset by."""

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.order import SampleOrder

SIZE = 224
"""Height and width of a view in pixels."""


def loader_recipe(index: DatasetIndex, batch: int, workers: int) -> tuple[PretrainConfig, SampleOrder]:
    """ImageNet's views, in batches of `batch` from one stream, made by `workers` processes (0: by this one)."""
    config = PretrainConfig.model_validate(
        {
            "name": "loader", "output": "none",
            "encoder": {"image_size": SIZE, "patch": 16, "width": 8, "depth": 1, "heads": 1},
            "projector": {"hidden": 8},
            "data": {"train": index.place, "streams": 1, "workers": workers},
            "optimizer": {"lr": 1e-4},
            "training": {"steps": 1, "batch": batch},
        }
    )  # fmt: skip
    order = SampleOrder([shard.samples for shard in index.shards], batch, 1, config.seed, config.data.shuffle_window)
    return config, order
