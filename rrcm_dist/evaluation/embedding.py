"""Representations of a dataset's images as a Parquet file, written row group by row group.

Columns: sample_id, key, label, class, representation (a list of D float32 or float16). The file's metadata, under
`rrcm-dist`, is JSON: format and version, checkpoint and its SHA-256, recipe, noise, seed, data, and how many images
were asked for: those that could not be decoded have no row.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rrcm_dist.data.index import DatasetIndex, content_identity
from rrcm_dist.errors import InvalidInput
from rrcm_dist.evaluation.images import EVALUATION_BATCH, noisy_images
from rrcm_dist.evaluation.reading import ReadImages, read_once
from rrcm_dist.evaluation.trained import Trained
from rrcm_dist.files import require_free_space, sha256, whole_file
from rrcm_dist.models.checkpoint_files import FORMAT
from rrcm_dist.noise import conditioning_level

VERSION = 1
ROWS_PER_GROUP = 4096
"""Images whose representations wait in memory."""
BYTES_BESIDE = 64
"""Of a row, beside its representation, at most or so."""


@dataclass(frozen=True)
class EmbeddingSettings:
    """How to represent images."""

    sigma: float
    """Noise of the images; 0 is none."""
    seed: int
    """Of the noise."""
    half: bool = False
    """float16 instead of float32."""
    batch: int = EVALUATION_BATCH
    workers: int = 0


@dataclass(frozen=True)
class Embedded:
    """What was written."""

    images: int
    left_out: int
    """Images that could not be decoded."""


@torch.no_grad()
def embed(
    trained: Trained, index: DatasetIndex, sample_ids: np.ndarray, output: Path, settings: EmbeddingSettings
) -> Embedded:
    """Write the representations of the named images, in that order, to `output`, which appears whole.

    Raises `InvalidInput` where `output` exists, and `RunFailure` where a shard cannot be read, no image decoded, or
    there is no room.
    """
    if output.exists():
        raise InvalidInput(f"{output} exists already: name another --output, or move it away")
    number_bytes = 2 if settings.half else 4
    require_free_space(output.parent, len(sample_ids) * (trained.width * number_bytes + BYTES_BESIDE), str(output))
    schema = _schema(trained.width, settings.half, _metadata(trained, index, len(sample_ids), settings))
    compute = trained.representations(settings.sigma)
    images = 0
    with whole_file(output) as aside, pq.ParquetWriter(aside, schema) as writer:
        group: list[pa.RecordBatch] = []
        for read in read_once(index, sample_ids, trained.image_size, settings.batch, settings.workers, "embedding"):
            ids = read.sample_ids.tolist()
            noisy = noisy_images(read.pixels, ids, settings.sigma, settings.seed, trained.device)
            group.append(_rows(read, index.classes, compute(noisy), schema))
            images += len(ids)
            if sum(map(len, group)) >= ROWS_PER_GROUP:
                _write(writer, group, schema)
        _write(writer, group, schema)
    return Embedded(images, len(sample_ids) - images)


def _metadata(trained: Trained, index: DatasetIndex, asked: int, settings: EmbeddingSettings) -> dict[str, Any]:
    return {
        "format": f"{FORMAT} representations",
        "version": VERSION,
        "checkpoint": str(trained.file),
        "checkpoint_sha256": sha256(trained.file),
        "network": trained.name,
        "recipe": trained.recipe.model_dump(mode="json"),
        "precision": trained.precision,
        "sigma": settings.sigma,
        "noise_level": conditioning_level(trained.recipe.noise, settings.sigma),
        "seed": settings.seed,
        "device": trained.device.type,
        "data": index.place,
        "data_identity": content_identity(index),
        "images": asked,
    }


def _schema(width: int, half: bool, metadata: dict[str, Any]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("sample_id", pa.int64(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("class", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("representation", pa.list_(pa.float16() if half else pa.float32(), width), nullable=False),
        ],
        metadata={FORMAT: json.dumps(metadata)},
    )


def _rows(read: ReadImages, classes: Sequence[str], representations: Tensor, schema: pa.Schema) -> pa.RecordBatch:
    kind = schema.field("representation").type
    labels = read.labels.numpy().astype(np.int32)
    numbers = representations.cpu().numpy().astype(kind.value_type.to_pandas_dtype())
    columns = [
        pa.array(read.sample_ids.numpy()),
        pa.array(read.keys),
        pa.array(labels),
        pa.DictionaryArray.from_arrays(labels, pa.array(classes)),
        pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), kind.list_size),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _write(writer: pq.ParquetWriter, group: list[pa.RecordBatch], schema: pa.Schema) -> None:
    """The waiting rows as one row group; none wait then."""
    if group:
        writer.write_table(pa.Table.from_batches(group, schema), row_group_size=sum(map(len, group)))
        group.clear()
