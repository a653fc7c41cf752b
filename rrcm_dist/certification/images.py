"""The images to certify: which of a dataset, what names and labels they have, and how their pixels are read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rrcm_dist.config.schema import SelectionConfig
from rrcm_dist.data.index import DatasetIndex, content_identity
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.errors import InvalidInput, RunFailure

PixelReader = Callable[[Sequence[int]], Iterator[tuple[int, Tensor]]]
"""From sample ids to (sample id, uint8 (C, H, W)) in the same order, read as they are asked for."""


@dataclass(frozen=True)
class CertifiedImage:
    """One image to certify."""

    image: int
    """Sample id: its position in the dataset."""
    key: str
    """Its name, unique in the dataset; its noise is named by it."""
    label: int


@dataclass(frozen=True)
class ImageSet:
    """The chosen images of one dataset."""

    identity: str
    """SHA-256 that two datasets share only if they hold the same images and labels in the same order."""
    classes: int
    size: int
    """Images of the dataset, chosen or not."""
    images: tuple[CertifiedImage, ...]
    read: PixelReader


def images_of_shards(index: DatasetIndex, image_size: int, selection: SelectionConfig) -> ImageSet:
    """The chosen images of a folder of shards, resized (short side) and centre-cropped to `image_size`.

    Raises `InvalidInput` where nothing is chosen or a chosen position is not there, and `RunFailure` where a label is
    not a class.
    """
    positions = select_positions(len(index), selection)
    images = tuple(CertifiedImage(i, str(index.keys[i]), int(index.label[i])) for i in positions)
    check_labels(images, len(index.classes))

    def read(sample_ids: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        for batch in evaluation_images(index, image_size, sample_ids):
            yield from zip(batch.sample_ids.tolist(), batch.images, strict=True)

    return ImageSet(content_identity(index), len(index.classes), len(index), images, read)


def images_of_tensor(pixels: Tensor, labels: Sequence[int], classes: int, selection: SelectionConfig) -> ImageSet:
    """The chosen images of a tensor: uint8 (N, C, H, W). Their keys are their positions."""
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or len(pixels) != len(labels):
        raise InvalidInput("give uint8 pixels of shape (N, C, H, W) and N labels")
    images = tuple(CertifiedImage(i, str(i), int(labels[i])) for i in select_positions(len(pixels), selection))
    check_labels(images, classes)
    digest = hashlib.sha256(f"{tuple(pixels.shape)} {classes} {[int(label) for label in labels]}".encode())
    digest.update(pixels.contiguous().numpy().data)
    return ImageSet(digest.hexdigest(), classes, len(pixels), images, lambda ids: ((i, pixels[i]) for i in ids))


def select_positions(size: int, selection: SelectionConfig) -> list[int]:
    """The positions that `selection` chooses among `size` images."""
    if selection.positions is None:
        positions = list(range(selection.start, size, selection.every))[: selection.count]
        if not positions:
            raise InvalidInput(
                f"images.start {selection.start} is beyond the last of {size} images: nothing to certify"
            )
        return positions
    for position in selection.positions:
        if position >= size:
            raise InvalidInput(f"images.positions has {position}, and there are {size} images, numbered from 0")
    return list(selection.positions)


def describe_selection(selection: SelectionConfig, images: ImageSet) -> str:
    """A line that says which images are certified: `images: one in 20 from 0: 500 of 10000`."""
    if selection.positions is not None:
        which = "the listed positions"
    elif selection.every == 1:
        which = f"every one from {selection.start}"
    else:
        which = f"one in {selection.every} from {selection.start}"
    return f"images: {which}: {len(images.images)} of {images.size}"


def check_labels(images: Sequence[CertifiedImage], classes: int) -> None:
    """Raise `RunFailure` unless every label is one of `classes` classes."""
    for image in images:
        if not 0 <= image.label < classes:
            raise RunFailure(
                f"image {image.image} ({image.key}) has label {image.label}, and the dataset's {classes} classes are "
                f"numbered 0 to {classes - 1}: verify the dataset"
            )
