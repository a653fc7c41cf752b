"""Draws per second of a certification worker beside the bare forward pass, and beside a plain loop.

The same network, batch and precision, in turn:
- bare: the forward pass alone, on one batch that lies ready on the device; the limit;
- ours: a block as a worker counts it: noise from its own stream, added, classified, counted;
- plain: as Cohen et al.'s released `Smooth` does it: repeat the image, add torch's noise, argmax, count on the host.

    OMP_NUM_THREADS=1 python -m benchmarks certification_worker
    python -m benchmarks certification_worker --device cuda --batch 1000 --draws 20000 --precision bf16 --record
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import markdown_table, report
from rrcm_dist.certification.blocks import Block, Stage
from rrcm_dist.certification.workers.counting import BlockCounter
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.classifier import NoisyPixelClassifier
from rrcm_dist.models.rebuilding import network_of
from rrcm_dist.noise import conditioning_level

RECIPES = ("cifar10/finetune-b-sigma0.5", "imagenet/finetune-b-sigma0.5")
PAPER_DRAWS = 500 * 3 * 100_100
"""500 images at three noise levels, 100 draws of selection and 100 000 of estimation each."""
PUBLISHED_HOURS = {"rRCM-B (A800)": 22, "Cohen's ResNet-50": 63, "Carlini 2022 (A100, a tenth of the draws)": 195}
"""GPU-hours for 500 images at three noise levels, from the published seconds per image."""


def main() -> None:
    """Measure each network and print shares of the bare forward pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", nargs="+", default=RECIPES, help=f"fine-tuning recipes [default: {' '.join(RECIPES)}]"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda [default: cpu]")
    parser.add_argument("--batch", type=int, default=16, help="draws per forward pass [default: 16]")
    parser.add_argument("--draws", type=int, default=64, help="draws per measurement [default: 64]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds taken in turn, the best counts [default: 3]")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network [default: fp32]")
    parser.add_argument("--attention", choices=("auto", "sdpa", "xformers"), default="auto", help="[default: auto]")
    parser.add_argument("--adaptive-draws", type=float, help="mean draws per image of mode adaptive, for the hours")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    for name in chosen.recipe:
        recipe = load_recipe(name, (), kind="finetune")
        assert isinstance(recipe, FinetuneConfig)
        rows, share = _measure(recipe, device, chosen)
        size = recipe.encoder.image_size
        how = f"{size} px, {chosen.precision}, batch {chosen.batch}, best of {chosen.rounds}"
        title = f"Certification worker, {name}, {how}"
        text = markdown_table(rows)
        if device.type == "cuda":
            text += "\n\n" + _hours(float(rows[1]["draws/s"].replace(",", "")), chosen.adaptive_draws)
        report("certification_worker", title, text + f"\n\nShare of the bare forward pass: {share:.3f}", chosen.record)


def _measure(
    recipe: FinetuneConfig, device: torch.device, chosen: argparse.Namespace
) -> tuple[list[dict[str, str]], float]:
    network = network_of(recipe).eval()
    network.precision = chosen.precision
    use_attention(network, chosen.attention, device)
    classifier = NoisyPixelClassifier(network, conditioning_level(recipe.noise, recipe.sigma)).to(device)
    classifier.requires_grad_(False)
    size = recipe.encoder.image_size
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8))
    counter = BlockCounter(classifier, 0, recipe.classes, device, chosen.batch, chosen.precision)
    block = Block(0, "0", recipe.sigma, Stage.ESTIMATION, 0, chosen.draws)
    ways: dict[str, Callable[[], object]] = {
        "bare forward pass": lambda: _bare(classifier, image.to(device), chosen.batch, chosen.draws),
        "ours": lambda: counter.count(image, block),
        "plain loop": lambda: _plain(classifier, image.to(device), recipe.sigma, recipe.classes, chosen),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for turn in range(chosen.rounds + 1):  # the first warms up
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    rows = [
        {
            "way": name,
            "draws/s": f"{chosen.draws / taken:,.2f}",
            "bare = 1": f"{seconds['bare forward pass'] / taken:.3f}",
            "plain = 1": f"{seconds['plain loop'] / taken:.3f}",
        }
        for name, taken in seconds.items()
    ]
    return rows, seconds["bare forward pass"] / seconds["ours"]


def _bare(classifier: nn.Module, image: Tensor, batch: int, draws: int) -> None:
    ready = (image.float() / 255).expand(batch, -1, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(draws // batch):
            classifier(ready)


def _plain(classifier: nn.Module, image: Tensor, sigma: float, classes: int, chosen: argparse.Namespace) -> np.ndarray:
    pixels = image.float() / 255
    counts = np.zeros(classes, dtype=int)
    with torch.no_grad():
        for _ in range(chosen.draws // chosen.batch):
            repeated = pixels.repeat((chosen.batch, 1, 1, 1))
            noise = torch.randn_like(repeated) * sigma
            for answer in classifier(repeated + noise).argmax(1).cpu().numpy():
                counts[answer] += 1
    return counts


def _hours(draws_per_second: float, adaptive_draws: float | None) -> str:
    fixed = PAPER_DRAWS / draws_per_second / 3600
    lines = [f"500 images × 3 σ, fixed n = 100 000: {fixed:.1f} GPU-hours on this GPU."]
    if adaptive_draws:
        hours = 1500 * adaptive_draws / draws_per_second / 3600
        lines.append(f"Adaptive, at {adaptive_draws:,.0f} draws per image: {hours:.2f} GPU-hours.")
    published = ", ".join(f"{name} {hours} h" for name, hours in PUBLISHED_HOURS.items())
    return " ".join([*lines, f"Published: {published}."])
