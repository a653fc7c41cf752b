"""Our bounds beside those of auto_LiRPA (interval bound propagation), in evaluation mode.

CNN-7 and residual networks with batch norms that have been through training: margins of every class, largest relative
difference. auto_LiRPA is no requirement of the project: a copy of its repository on PYTHONPATH will do (its head; the
registry's 0.3 does not run on today's torch), with `appdirs` beside it.

    python -m benchmarks ibp_bounds [--record]
"""

import argparse
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import markdown_table, report
from rrcm_dist.config.ibp import IbpNetworkConfig
from rrcm_dist.interval.bounds import Signal, pixel_box
from rrcm_dist.interval.margins import body_and_head, margin_lower_bounds
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.propagation import propagate

WITHIN = 1e-5
"""Largest relative difference allowed."""
CLASSES, IMAGES = 10, 8
EPSILONS = (1 / 255, 8 / 255, 0.1)
NETWORKS = {
    "CNN-7, 32 × 32, width 64": IbpNetworkConfig(
        kind="cnn7", image_size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)
    ),
    "CNN-7, 28 × 28, one channel": IbpNetworkConfig(kind="cnn7", image_size=28, channels=1),
    "Wide-ResNet, 32 × 32, width 32": IbpNetworkConfig(kind="wide_resnet", image_size=32, width=32),
    "ResNeXt, 32 × 32, width 32": IbpNetworkConfig(kind="resnext", image_size=32, width=32, stem=64),
}


def main() -> None:
    """Compare and print; exit code 1 where a bound is further apart than allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    lirpa = _auto_lirpa()
    rows, worst = [], 0.0
    for name, config in NETWORKS.items():
        for epsilon in EPSILONS:
            difference, seconds, theirs = _compare(config, epsilon, lirpa)
            worst = max(worst, difference)
            rows.append(
                {
                    "network": name,
                    "ε": f"{epsilon:.4g}",
                    "largest relative difference": f"{difference:.1e}",
                    "ms, ours": f"{1000 * seconds:.0f}",
                    "ms, auto_LiRPA": f"{1000 * theirs:.0f}",
                }
            )
    verdict = (
        f"largest of all {worst:.1e}, allowed {WITHIN:.0e}; {IMAGES} images, lower bounds of {CLASSES - 1} margins"
    )
    title = f"Bounds beside auto_LiRPA {lirpa.__version__}"
    report("ibp_bounds", title, f"{markdown_table(rows)}\n\n{verdict}.", arguments.record)
    if worst > WITHIN:
        sys.exit(f"a bound is off by {worst:.1e} of the largest margin; {WITHIN:.0e} would be rounding")


def _auto_lirpa() -> ModuleType:
    try:
        import auto_LiRPA
    except ImportError as error:
        sys.exit(
            f"auto_LiRPA is not installed ({error}): put a copy of its repository (Verified-Intelligence/auto_LiRPA) "
            "and the package appdirs on PYTHONPATH; nothing was compared"
        )
    return auto_LiRPA


def _compare(config: IbpNetworkConfig, epsilon: float, lirpa: Any) -> tuple[float, float, float]:
    """Largest difference of a margin's bound in the image's largest, and seconds of ours and theirs."""
    network = _network(config)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(IMAGES, config.channels, config.image_size, config.image_size, generator=generator)
    labels = torch.arange(IMAGES) % CLASSES
    ours, seconds = _timed(lambda: _our_margins(network, images, labels, epsilon))
    theirs, their_seconds = _timed(_their_margins(network, images, labels, epsilon, lirpa))
    others = torch.arange(CLASSES)[None] != labels[:, None]
    ours = ours[others].view(IMAGES, CLASSES - 1)
    scale = theirs.abs().amax(dim=1, keepdim=True)
    return float(((ours - theirs).abs() / scale).max()), seconds, their_seconds


def _network(config: IbpNetworkConfig) -> IbpNetwork:
    """Initialised, its batch norms' statistics from a few batches, their weights and biases moved."""
    network = IbpNetwork(config, CLASSES)
    generator = torch.Generator().manual_seed(0)
    size, labels = config.image_size, torch.zeros(16, dtype=torch.long)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(16, config.channels, size, size, generator=generator), labels, None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


@torch.no_grad()
def _our_margins(network: IbpNetwork, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    body, head = body_and_head(network.layers)
    signal = Signal(box=pixel_box(images, epsilon))
    for name, layer in body:
        signal = propagate(layer, signal, name)
    assert signal.box is not None
    return margin_lower_bounds(head, signal.box, labels)


def _their_margins(
    network: IbpNetwork, images: Tensor, labels: Tensor, epsilon: float, lirpa: Any
) -> Callable[[], Tensor]:
    """(N, classes - 1): z_y - z_j for j in rising order without y."""
    bounded = lirpa.BoundedModule(network.layers, images, device="cpu")
    ball = lirpa.PerturbationLpNorm(
        norm=float("inf"), eps=epsilon, x_L=(images - epsilon).clamp(min=0), x_U=(images + epsilon).clamp(max=1)
    )
    identity = torch.eye(CLASSES)
    matrices = [
        torch.stack([identity[label] - identity[other] for other in range(CLASSES) if other != label])
        for label in labels.tolist()
    ]
    inputs, matrix = lirpa.BoundedTensor(images, ball), torch.stack(matrices)

    def compute() -> Tensor:
        with torch.no_grad():
            lower, _ = bounded.compute_bounds(x=(inputs,), C=matrix, IBP=True, method=None)
        return lower

    return compute


def _timed(compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Its result, and the fastest of three calls in seconds."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = compute()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)
