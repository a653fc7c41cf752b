"""How well a checkpoint classifies held-out images, clean and under noise: by neighbours, a linear probe, its head."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rrcm_dist.config.parts import KnnConfig
from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.errors import InvalidInput
from rrcm_dist.evaluation.images import EVALUATION_BATCH, evenly_spaced, noisy_images
from rrcm_dist.evaluation.neighbours import knn_predictions
from rrcm_dist.evaluation.probe import PENALTIES, fit_probe
from rrcm_dist.evaluation.reading import read_once
from rrcm_dist.evaluation.trained import Trained
from rrcm_dist.progress import progress_bar


@dataclass(frozen=True)
class Images:
    """Some images of a dataset, evenly spaced over it."""

    index: DatasetIndex
    count: int
    """At most so many."""

    @property
    def ids(self) -> np.ndarray:
        """Their sample ids, int64."""
        return evenly_spaced(len(self.index), self.count)


@dataclass(frozen=True)
class Settings:
    """How to evaluate."""

    sigmas: tuple[float, ...]
    knn: KnnConfig
    """Its neighbours and temperature."""
    probe: bool
    seed: int
    """Of the noise and of the probe's split."""
    batch: int = EVALUATION_BATCH
    workers: int = 0


@dataclass(frozen=True)
class Score:
    """Correct answers under one noise level."""

    measure: str
    """accuracy, knn or probe."""
    sigma: float
    correct: int
    images: int


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what they rest on."""

    scores: tuple[Score, ...]
    left_out: int
    """Held-out images that could not be decoded."""
    bank: int
    """Training images that neighbours and probe learned from; 0 without them."""
    penalty: float | None
    """The probe's λ; None without one."""


Predict = Callable[[Tensor], Tensor]
"""(n, D) representations → (n,) int64 classes."""


@torch.no_grad()
def evaluate(trained: Trained, held_out: Images, train: Images | None, settings: Settings) -> Evaluation:
    """Score every held-out image once at each σ.

    accuracy is that of a fine-tuned network's head; knn and probe learn from clean representations of `train` and
    answer for those of held-out images under noise, as during pre-training; every image's noise is the same for all.

    Raises `InvalidInput` where the datasets and the network have different classes, or there is nothing to score by,
    and `RunFailure` where a shard cannot be read or no image decoded.
    """
    _check_classes(trained, held_out.index, None if train is None else train.index)
    predictors: dict[str, Predict] = {}
    if isinstance(trained.recipe, FinetuneConfig):
        predictors["accuracy"] = trained.classes_of
    elif train is None:
        raise InvalidInput(f"{trained.file} is pre-trained, without a head: give training shards to learn classes from")
    bank, penalty = 0, None
    if train is not None:
        representations, labels = _represented(trained, train, (0.0,), settings, "training images")
        bank, classes = len(labels), len(train.index.classes)
        predictors["knn"] = _neighbours(representations[0.0], labels, classes, settings.knn)
        if settings.probe:
            predictors["probe"], penalty = _probe(representations[0.0], labels, classes, settings.seed)
    queries, labels = _represented(trained, held_out, settings.sigmas, settings, "held-out images")
    scores = tuple(
        Score(measure, sigma, int((predict(queries[sigma]) == labels).sum()), len(labels))
        for measure, predict in predictors.items()
        for sigma in settings.sigmas
    )
    return Evaluation(scores, len(held_out.ids) - len(labels), bank, penalty)


def _check_classes(trained: Trained, held_out: DatasetIndex, train: DatasetIndex | None) -> None:
    if train is not None and train.classes != held_out.classes:
        raise InvalidInput(
            f"{held_out.place} and {train.place} have different classes ({len(held_out.classes)} and "
            f"{len(train.classes)}, or other names): build both from the same classes"
        )
    if isinstance(trained.recipe, FinetuneConfig) and len(held_out.classes) != trained.recipe.classes:
        raise InvalidInput(
            f"{trained.file} knows {trained.recipe.classes} classes, and {held_out.place} has "
            f"{len(held_out.classes)}: give shards of the classes that it was fine-tuned on"
        )


def _represented(
    trained: Trained, images: Images, sigmas: tuple[float, ...], settings: Settings, what: str
) -> tuple[dict[float, Tensor], Tensor]:
    """σ → (images, D) float32 representations, and (images,) int64 labels, on the device; images are read once."""
    device = trained.device
    computes = {sigma: trained.representations(sigma) for sigma in sigmas}
    found: dict[float, list[Tensor]] = {sigma: [] for sigma in sigmas}
    labels: list[Tensor] = []
    for read in read_once(images.index, images.ids, trained.image_size, settings.batch, settings.workers, what):
        for sigma, compute in computes.items():
            noisy = noisy_images(read.pixels, read.sample_ids.tolist(), sigma, settings.seed, device)
            found[sigma].append(compute(noisy))
        labels.append(read.labels)
    return {sigma: torch.cat(parts) for sigma, parts in found.items()}, torch.cat(labels).to(device)


def _neighbours(bank: Tensor, labels: Tensor, classes: int, config: KnnConfig) -> Predict:
    return lambda queries: knn_predictions(queries, bank, labels, classes, config.neighbours, config.temperature)


def _probe(bank: Tensor, labels: Tensor, classes: int, seed: int) -> tuple[Predict, float]:
    with progress_bar("linear probe", len(PENALTIES) + 1, unit="fits") as bar:
        classifier = fit_probe(bank, labels, classes, seed, fitted=bar.advance)
    return classifier.predictions, classifier.penalty
