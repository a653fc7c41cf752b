"""The data path of the released rRCM code: image files, three views by Pillow and torchvision, a DataLoader."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rrcm_dist.data.index import load_index
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.torchvision_compat import allow_cpu_torch

Views = tuple[Tensor, Tensor, Tensor]
"""Plain view, view a, view b: float32 in [-1, 1]."""


def image_files(shards: str, folder: Path) -> list[Path]:
    """The samples of a folder of shards as one file each in `folder`, which is what the released code reads."""
    index = load_index(shards)
    reader = SampleReader(index)
    files = []
    for sample in range(sum(shard.samples for shard in index.shards)):
        file = folder / f"{sample:08d}.jpg"
        file.write_bytes(reader.read(sample))
        files.append(file)
    return files


def released_batches(files: list[Path], size: int, batch: int, workers: int, device: torch.device) -> Iterator[Views]:
    """Shuffled batches of three views on `device`, epoch after epoch."""
    loader: DataLoader = DataLoader(
        _ThreeViews(files, size),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        for x, a, b in loader:
            yield x.to(device, non_blocking=True), a.to(device, non_blocking=True), b.to(device, non_blocking=True)


class _ThreeViews(Dataset):
    """x, a, b of an image file."""

    def __init__(self, files: list[Path], size: int) -> None:
        allow_cpu_torch()  # in a worker as well: unpickling calls for torchvision, too
        self._files, self._size = files, size
        self._plain, self._a, self._b = published_views(size)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> Views:
        with open(self._files[position], "rb") as file:
            picture = Image.open(file).convert("RGB")
        a, b = self._a(picture), self._b(picture)
        return self._plain(centre_cropped(picture, self._size)), a, b

    def __getstate__(self) -> tuple[list[Path], int]:
        return self._files, self._size

    def __setstate__(self, state: tuple[list[Path], int]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def published_views(size: int) -> tuple:
    """torchvision's transforms of the plain view (already cropped), of view a and of view b."""
    from torchvision import transforms as tv

    jitter = tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
    start = [tv.RandomResizedCrop(size, scale=(0.08, 1.0)), jitter, tv.RandomGrayscale(p=0.2)]
    end = [tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize([0.5] * 3, [0.5] * 3)]
    view_a = tv.Compose([*start, tv.RandomApply([_blurred], p=1.0), *end])
    solarize = tv.RandomApply([ImageOps.solarize], p=0.2)
    view_b = tv.Compose([*start, tv.RandomApply([_blurred], p=0.1), solarize, *end])
    return tv.Compose(end), view_a, view_b


def _blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def centre_cropped(picture: Image.Image, size: int) -> Image.Image:
    """Short side resized to `size` and the centre cropped, as in guided diffusion (Dhariwal & Nichol 2021)."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))
