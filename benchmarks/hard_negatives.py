"""Hard negatives on the digits at equal steps: none, random, static, dynamic, dynamic with the guard.

Each run is `rrcm pretrain digits/pretrain-hard-negatives` with other settings, scored by `rrcm evaluate` (linear probe
and k nearest neighbours of the held-out digits, clean and under noise) in a folder of its own, so that an interrupted
benchmark goes on where it stopped. Before them: loss and gradients over 1 to 4 ranks beside one process, and CoSENT
beside sentence-transformers' where that can be imported.

    python -m benchmarks hard_negatives --seeds 0 1 2 --output runs/hard-negatives
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import torch

from benchmarks.batch_balance import beside_sentence_transformers, identity_over_ranks
from benchmarks.digits import digits_shards, run_here
from benchmarks.machine import markdown_table, report
from benchmarks.seeds import interval
from rrcm_dist.data.index import load_index
from rrcm_dist.training.additions.hard_negatives import STATE
from rrcm_dist.training.checkpointing.checkpoints import read_resume_state

RECIPE, SECTION = "digits/pretrain-hard-negatives", "additions.hard_negatives"
PUBLISHED = [f"{SECTION}.guard.on=false"]
ARMS = {
    "rRCM alone": [f"{SECTION}=null"],
    "random": [f"{SECTION}.mode=random", f"{SECTION}.interval=100"],  # the default: it looks at nothing
    "static": [f"{SECTION}.mode=static", *PUBLISHED],
    "dynamic": PUBLISHED,
    "dynamic, guard": [],
}
SIGMAS = (0.0, 0.25)
MEASURES = {"probe": "linear probe", "knn": "20-NN"}
Scores = dict[tuple[str, float], float]
"""Accuracy in % by measure and σ."""
FALSE = ("of its own class", 0.0)
"""The share of a digit's negatives at the end that show the same digit, in %, beside the scores; no run knows it."""


def main() -> None:
    """Check the losses, train and score every arm with every seed, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every run; give another --output")
    parser.add_argument("--output", type=Path, default=Path("runs/hard-negatives"))
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    checks = [identity_over_ranks(), beside_sentence_transformers()]
    shards = digits_shards(arguments.output / "shards", 32)
    found = {
        arm: [
            _scores(arm, [f"seed={seed}", *arguments.set], shards, arguments.output / f"seed-{seed}")
            for seed in arguments.seeds
        ]
        for arm in arguments.arms
    }
    parts = [
        markdown_table([_row(arm, scores, found[arguments.arms[0]]) for arm, scores in found.items()]),
        "Held-out accuracy in %, mean and 95 % interval over seeds (Student's t). Leads: over the first row, mean of "
        "the four, pairs of one seed. Last column: negatives at the end that are of the digit's own class, in %.",
        *checks,
    ]
    listed = ", ".join(map(str, arguments.seeds))
    report("hard_negatives", f"Hard negatives on digits, seeds {listed}", "\n\n".join(parts), arguments.record)


def _scores(arm: str, values: list[str], shards: Path, folder: Path) -> Scores:
    output = folder / arm.replace(", ", "-").replace(" ", "-")
    results = output / "results.json"
    if not results.exists():
        given = [f"output={output}", f"data.train={shards / 'train'}", f"data.held_out={shards / 'held-out'}"]
        run_here("-m", "rrcm_dist.cli.main", "pretrain", RECIPE, *given, *values, *ARMS[arm], "--device", "cpu")
        levels = ",".join(f"{sigma:g}" for sigma in SIGMAS)
        told = ["--network", "online", "--sigmas", levels, "--device", "cpu", "-o", str(results)]
        run_here("-m", "rrcm_dist.cli.main", "evaluate", str(output), *told)
    rows = json.loads(results.read_text())["results"]
    return {(row["measure"], row["sigma"]): 100 * row["accuracy"] for row in rows} | _false(output, shards)


def _false(output: Path, shards: Path) -> Scores:
    checkpoints = output / "checkpoints"
    state = read_resume_state(checkpoints / (checkpoints / "latest").read_text().strip(), STATE)
    if state is None or not (given := state["assigned"] >= 0).any():
        return {}
    labels = torch.from_numpy(load_index(shards / "train").label)
    same = labels[state["assigned"].long()] == labels[:, None]
    return {FALSE: 100 * float(same[given].float().mean())}


def _row(arm: str, scores: list[Scores], alone: list[Scores]) -> dict[str, str]:
    columns = {
        f"{name}, σ {sigma:g}": interval([each[measure, sigma] for each in scores])
        for measure, name in MEASURES.items()
        for sigma in SIGMAS
    }
    leads = [
        mean(each[measure, sigma] - other[measure, sigma] for measure in MEASURES for sigma in SIGMAS)
        for each, other in zip(scores, alone, strict=True)
    ]
    false = interval([each[FALSE] for each in scores]) if FALSE in scores[0] else "–"
    lead = "–" if scores is alone else interval(leads, "+")
    return {"negatives": arm, **columns, "mean lead": lead, FALSE[0]: false}


if __name__ == "__main__":
    main()
