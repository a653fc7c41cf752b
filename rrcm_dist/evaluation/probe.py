"""A linear probe: multinomial logistic regression on standardized representations, its penalty chosen on a split."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrcm_dist.random_streams import Purpose, numpy_generator

PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""λ of mean cross-entropy + λ/2 · ‖W‖², tried from the strongest on."""
SPLIT = 5
"""One in so many of the training images chooses λ."""
MOST_ITERATIONS = 200
LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class LinearClassifier:
    """Classes by a linear layer on standardized representations."""

    mean: Tensor
    """(D,) float32, of the training representations; so is `deviation`."""
    deviation: Tensor
    weight: Tensor
    """(classes, D) float32."""
    bias: Tensor
    """(classes,) float32."""
    penalty: float
    """λ."""

    def predictions(self, representations: Tensor) -> Tensor:
        """(n, D) float → (n,) int64 classes."""
        return F.linear((representations.float() - self.mean) / self.deviation, self.weight, self.bias).argmax(dim=1)


def fit_probe(
    representations: Tensor, labels: Tensor, classes: int, seed: int, fitted: Callable[[], object] = lambda: None
) -> LinearClassifier:
    """The linear classifier of (n, D) float representations and their (n,) int64 labels in [0, classes).

    λ is the one of `PENALTIES` with most correct answers on a fifth of them, chosen by `seed`, the strongest among
    equals, after training on the others; then it trains on all. `fitted` is called after each of the
    `len(PENALTIES) + 1` fits.
    """
    order = torch.from_numpy(numpy_generator(Purpose.SAMPLE_ORDER, "linear probe", seed).permutation(len(labels)))
    order = order.to(labels.device)
    chooses, trains = order[: len(labels) // SPLIT], order[len(labels) // SPLIT :]
    best, most, start = PENALTIES[0], -1, None
    for penalty in PENALTIES:
        start = _fit(representations[trains], labels[trains], classes, penalty, start)
        correct = int((start.predictions(representations[chooses]) == labels[chooses]).sum())
        if correct > most:
            best, most = penalty, correct
        fitted()
    final = _fit(representations, labels, classes, best, None)
    fitted()
    return final


def _fit(
    representations: Tensor, labels: Tensor, classes: int, penalty: float, start: LinearClassifier | None
) -> LinearClassifier:
    """L-BFGS from the classifier of another penalty, or from zero."""
    features = representations.float()
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    deviation = deviation.clamp(min=LEAST_DEVIATION)
    features = (features - mean) / deviation
    weight = features.new_zeros(classes, features.shape[1]) if start is None else start.weight.clone()
    bias = features.new_zeros(classes) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=MOST_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(features, weight, bias), labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return LinearClassifier(mean, deviation, weight.detach(), bias.detach(), penalty)
