"""Certified training on scikit-learn's digits: what batch norm, the initialisation and the regularisers each bring.

Every arm and seed is a whole run of `rrcm train-ibp` (the paper's short schedule at ε = 0.1) in a folder of its own, so
that an interrupted benchmark goes on where it stopped. Errors are of all held-out digits; verified error by bounds,
PGD error by an attack, which must not exceed it in any run.

    python -m benchmarks ibp --seeds 0 1 2 --output runs/ibp
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from benchmarks.ibp_plot import save_widths
from benchmarks.machine import markdown_table, report
from rrcm_dist.config.load import load_recipe
from rrcm_dist.data.index import INDEX_FILE, load_index
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.interval.attack import pgd_margins
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.loading import load_ibp_classifier
from rrcm_dist.interval.networks import IbpNetwork
from rrcm_dist.interval.verification import verified_margins

RECIPE = "digits/ibp-cnn7"
PLAIN = ("network.initialization=torch", "regularizers.weight=0")
ARMS = {
    "torch's initialisation, no batch norm": (*PLAIN, "network.batch_norm=false"),
    "+ batch norm": PLAIN,
    "+ IBP initialisation": ("regularizers.weight=0",),
    "+ regularisers (all)": (),
}
"""What each run sets beside the recipe; each arm adds to the one before."""
STARTS = {
    f"{kind}, {norm} batch norm": (f"network.initialization={name}", f"network.batch_norm={norm == 'with'}".lower())
    for norm in ("without", "with")
    for kind, name in (("torch's initialisation", "torch"), ("IBP initialisation", "ibp"))
}
"""Whose bounds are looked at as they are initialised."""
STEPS, RESTARTS = 40, 2
"""Of the attack."""
FIGURE = Path(__file__).parent / "figures" / "ibp-widths.png"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Errors:
    """Shares of the held-out images, in per cent."""

    clean: float
    pgd: float
    verified: float


def main() -> None:
    """Train every arm with every seed and print their errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/ibp"))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="set beside the recipe in every arm")
    parser.add_argument("--arms", type=int, nargs="+", default=list(range(len(ARMS))), help="which, counted from 0")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md, write the figure")
    arguments = parser.parse_args()
    for split in ("train", "held-out"):
        _build(arguments.output / "digits", split)
    images, labels = _held_out(arguments.output / "digits" / "held-out")
    arms = {arm: (number, (*arguments.set, *ARMS[arm])) for number, arm in enumerate(ARMS) if number in arguments.arms}
    errors = {
        arm: [_errors(_trained(arguments.output, number, seed, keys), images, labels) for seed in arguments.seeds]
        for arm, (number, keys) in arms.items()
    }
    rows = [{"": arm, **_row(runs)} for arm, runs in errors.items()]
    widths = {what: _widths((*arguments.set, *keys), images, labels) for what, keys in STARTS.items()}
    if arguments.record and not arguments.set:
        save_widths(widths, FIGURE)
    told = ", ".join(f"{arm}: {values[-1] / values[0]:.3g}" for arm, values in widths.items())
    table = (
        f"{markdown_table(rows)}\n\n{len(labels)} held-out digits, ε = {_epsilon():g}; mean ± half of the 95 % "
        f"interval over {len(arguments.seeds)} seeds. PGD: {STEPS} steps, {RESTARTS} restarts; in no run did it "
        "succeed on a verified image.\n\nMean width of the bounds before the last ReLU, as a multiple of the pixels', "
        f"at initialisation (seed 0, statistics of the held-out digits): {told}."
    )
    report("ibp", "Certified training by bounds on digits", table, arguments.record)


def _build(folder: Path, split: str) -> None:
    if (folder / split / INDEX_FILE).exists():
        return
    command = [sys.executable, "-m", "shards", "build", "digits", str(folder / split), "--split", split, "--size", "8"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _overrides(overrides: tuple[str, ...], digits: Path, output: Path, seed: int) -> list[str]:
    places = [f"data.train={digits / 'train'}", f"data.held_out={digits / 'held-out'}", f"output={output}"]
    return [*overrides, *places, f"seed={seed}"]


def _trained(output: Path, arm: int, seed: int, overrides: tuple[str, ...]) -> IbpNetwork:
    run = output / f"arm-{arm}-seed-{seed}"
    command = [sys.executable, "-m", "rrcm_dist.cli.main", "train-ibp", RECIPE, "--device", "cpu"]
    command += _overrides(overrides, output / "digits", run, seed)
    if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"the run {run} ended with exit code {code}")
    return load_ibp_classifier(run, CPU)


def _held_out(folder: Path) -> tuple[Tensor, Tensor]:
    """All images, float32 (N, 1, 8, 8) in [0, 1], and labels."""
    index = load_index(str(folder))
    parts = list(evaluation_images(index, 8, np.arange(len(index))))
    images = torch.cat([part.images for part in parts])
    return network_pixels(images, 1, CPU), torch.cat([part.labels for part in parts])


def _errors(network: IbpNetwork, images: Tensor, labels: Tensor) -> Errors:
    """At the recipe's ε. Raises `AssertionError` where an attack succeeds on a verified image."""
    epsilon, seeds = _epsilon(), range(len(images))
    with torch.no_grad():
        wrong = network(images).argmax(dim=1) != labels
    verified = verified_margins(network, images, labels, epsilon) > 0
    withstood = pgd_margins(network, images, labels, epsilon, STEPS, RESTARTS, seeds) > 0
    assert not (verified & ~withstood).any(), "an attack succeeded within a certificate"
    shares = [100 * broken.float().mean().item() for broken in (wrong, ~withstood, ~verified)]
    return Errors(*shares)


def _epsilon() -> float:
    return load_recipe(RECIPE, kind="train-ibp").epsilon.target


def _row(runs: list[Errors]) -> dict[str, str]:
    return {
        "clean error, %": _interval([run.clean for run in runs]),
        "PGD error, %": _interval([run.pgd for run in runs]),
        "verified error, %": _interval([run.verified for run in runs]),
    }


def _interval(values: list[float]) -> str:
    """Mean and half of Student's 95 % interval, with every value."""
    listed = ", ".join(f"{value:.1f}" for value in values)
    if len(values) < 2:
        return listed
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ± {half:.1f} ({listed})"


def _widths(overrides: tuple[str, ...], images: Tensor, labels: Tensor) -> list[float]:
    """Mean radii at initialisation: of the pixels, and before each ReLU."""
    recipe = load_recipe(RECIPE, overrides, kind="train-ibp")
    bounded = IbpNetwork(recipe.network, recipe.classes, recipe.seed)(images, labels, recipe.epsilon.target)
    return [box.radius.mean().item() for box in (bounded.pixels, *bounded.relu_inputs)]
