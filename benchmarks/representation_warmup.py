"""Representation warm-up on handwritten digits: probe accuracy over steps and over cost, with and without it.

The teacher is itself a run of rRCM on the same digits, without labels and of another seed, so that nothing from outside
helps; its pre-training counts in full in one reckoning and, where it says so, is left out of the other. Each seed has a
teacher of its own. Every checkpoint is scored by the linear probe of `rrcm evaluate`: fitted on clean training images,
asked about held-out ones, clean and under noise σ 0.25. Runs lie in folders of their own: interrupted, it goes on.

    python -m benchmarks representation_warmup --seeds 0 1 2 --record
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from benchmarks.digits import digits_shards, run_here
from benchmarks.machine import markdown_table, report
from benchmarks.representation_warmup_plot import save_plot
from benchmarks.seeds import interval

RECIPE = "digits/pretrain-warmup"
SECTION = "additions.representation_warmup"
FIGURE = Path(__file__).parent / "figures" / "representation-warmup.png"
EVERY = 40
SIZES = {
    "encoder.image_size": 16,
    "encoder.patch": 4,
    "training.batch": 48,
    "training.steps": 240,
    "training.checkpoint_every": EVERY,
    "training.keep_every": EVERY,
    "optimizer.warmup": 24,
    "knn.every": 1000,
}
"""Of the recipe's: the same number of tokens, on smaller images and batches, so that a seed takes minutes."""
WARMUP_STEPS, HALVING_STEPS = 60, 40
SIGMAS = (0.0, 0.25)
ALONE, WARM, TERM, LONG = "rRCM alone", "warm-up", "warm-up and term", "rRCM alone, for the whole cost"
TEACHER_SEED = 1000
"""Of the first seed's teacher; the others' follow."""


@dataclass(frozen=True)
class Point:
    """A checkpoint of a run."""

    step: int
    """Of the main run."""
    gflop: float
    """Of the run up to there, warm-up and the teacher's passes included."""
    accuracy: dict[float, float]
    """By σ."""


@dataclass(frozen=True)
class Seed:
    """All runs of a seed."""

    teacher_gflop: float
    """Of the teacher's pre-training."""
    curves: dict[str, list[Point]]

    def spent_before(self, arm: str) -> float:
        """What the teacher had cost, for those that have one."""
        return self.teacher_gflop if arm in (WARM, TERM) else 0.0


def main() -> None:
    """Train, score, tell, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/representation-warmup"))
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    shards = digits_shards(arguments.output / "shards", 16)
    seeds = [_seed(seed, shards, arguments.output / f"seed-{seed}") for seed in arguments.seeds]
    save_plot([(seed.curves, seed.spent_before) for seed in seeds], SIGMAS, arguments.figure)
    targets = {sigma: mean(seed.curves[ALONE][-1].accuracy[sigma] for seed in seeds) for sigma in SIGMAS}
    parts = [
        "At the end of each run:",
        markdown_table([_end(arm, seeds) for arm in seeds[0].curves]),
        "Lead over rRCM alone at the same step of the main run, points, pairs of one seed:",
        markdown_table([_leads(arm, seeds) for arm in (WARM, TERM)]),
        f"Until the probe has what rRCM alone has in the end on the mean over seeds; checkpoints every {EVERY} steps:",
        markdown_table([_until(arm, sigma, targets[sigma], seeds) for sigma in SIGMAS for arm in seeds[0].curves]),
        f"Mean and 95 % interval over seeds (Student's t). ![curves](figures/{arguments.figure.name})",
    ]
    listed = ", ".join(map(str, arguments.seeds))
    report(
        "representation_warmup",
        f"Representation warm-up on digits, seeds {listed}",
        "\n\n".join(parts),
        arguments.record,
    )


def _seed(seed: int, shards: Path, output: Path) -> Seed:
    """Teacher first, then the arms; the longest one is as long as the dearest arm with its teacher has cost."""
    given = [f"data.train={shards / 'train'}", f"data.held_out={shards / 'held-out'}"]
    given += [f"{key}={value}" for key, value in SIZES.items()]
    alone = [*given, f"{SECTION}=null"]
    teacher = _pretrained(output / "teacher", [*alone, f"seed={TEACHER_SEED + seed}"])
    lengths = [f"{SECTION}.steps={WARMUP_STEPS}", f"{SECTION}.term.halving_steps={HALVING_STEPS}"]
    warm = [*given, *lengths, f"seed={seed}", f"{SECTION}.teacher.weights={teacher}"]
    runs = {
        ALONE: _pretrained(output / "alone", [*alone, f"seed={seed}"]),
        WARM: _pretrained(output / "warm", [*warm, f"{SECTION}.term.weight=0"]),
        TERM: _pretrained(output / "term", warm),
    }
    teacher_gflop = _gflop(teacher)[max(_gflop(teacher))]
    each = _gflop(runs[ALONE])[EVERY] / EVERY
    whole = teacher_gflop + max(_gflop(runs[TERM]).values())
    steps = -(-round(whole / each) // EVERY) * EVERY
    runs[LONG] = _pretrained(output / "long", [*alone, f"seed={seed}", f"training.steps={steps}"])
    return Seed(teacher_gflop, {arm: _curve(run, shards, seed) for arm, run in runs.items()})


def _pretrained(output: Path, values: list[str]) -> Path:
    run_here("-m", "rrcm_dist.cli.main", "pretrain", RECIPE, f"output={output}", *values, "--device", "cpu")
    return output


def _gflop(run: Path) -> dict[int, float]:
    """Step → GFLOP up to there, of every logged step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["petaflop"] * 1e6 for line in lines}


def _curve(run: Path, shards: Path, seed: int) -> list[Point]:
    """Every kept checkpoint with its probe's accuracy, kept in a file beside the run."""
    file, gflop = run / "probe.json", _gflop(run)
    known = json.loads(file.read_text()) if file.exists() else {}
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        step = str(int(checkpoint.name.removeprefix("step-")))
        if step not in known:
            known[step] = _probed(checkpoint, shards, seed)
            file.write_text(json.dumps(known))
    found = {int(step): {float(sigma): value for sigma, value in scores.items()} for step, scores in known.items()}
    return [Point(step, gflop[step], found[step]) for step in sorted(found)]


def _probed(checkpoint: Path, shards: Path, seed: int) -> dict[float, float]:
    from rrcm_dist.config.parts import KnnConfig
    from rrcm_dist.data.index import load_index
    from rrcm_dist.evaluation.checkpoint import Images, Settings, evaluate
    from rrcm_dist.evaluation.trained import load_trained

    trained = load_trained(checkpoint, "online", torch.device("cpu"))
    held_out, train = (Images(load_index(str(shards / split)), 10_000) for split in ("held-out", "train"))
    found = evaluate(trained, held_out, train, Settings(SIGMAS, KnnConfig(), probe=True, seed=seed))
    return {score.sigma: score.correct / score.images for score in found.scores if score.measure == "probe"}


def _end(arm: str, seeds: list[Seed]) -> dict[str, str]:
    lasts = [seed.curves[arm][-1] for seed in seeds]
    full = [last.gflop + seed.spent_before(arm) for last, seed in zip(lasts, seeds, strict=True)]
    return {
        "run": arm,
        "main steps": f"{lasts[0].step}",
        "GFLOP in full": f"{mean(full):.0f}",
        "GFLOP, teacher given": f"{mean(last.gflop for last in lasts):.0f}",
        **{f"probe, σ {sigma:g}": interval([100 * last.accuracy[sigma] for last in lasts]) for sigma in SIGMAS},
    }


def _leads(arm: str, seeds: list[Seed]) -> dict[str, str]:
    row = {"run": arm}
    for sigma in SIGMAS:
        for place, step in enumerate(point.step for point in seeds[0].curves[ALONE]):
            if step % (2 * EVERY) == 0:
                leads = [
                    100 * (seed.curves[arm][place].accuracy[sigma] - seed.curves[ALONE][place].accuracy[sigma])
                    for seed in seeds
                ]
                row[f"σ {sigma:g}, step {step}"] = interval(leads, "+")
    return row


def _until(arm: str, sigma: float, target: float, seeds: list[Seed]) -> dict[str, str]:
    reached = [
        (seed, next((point for point in seed.curves[arm] if point.accuracy[sigma] >= target), None)) for seed in seeds
    ]
    found = [(seed, point) for seed, point in reached if point is not None]
    numbers = {
        "main steps": [float(point.step) for _, point in found],
        "GFLOP in full": [point.gflop + seed.spent_before(arm) for seed, point in found],
        "GFLOP, teacher given": [point.gflop for _, point in found],
    }
    return {
        "probe": f"σ {sigma:g}: {100 * target:.1f} %",
        "run": arm,
        "seeds that reach it": f"{len(found)} of {len(seeds)}",
        **{what: interval(values) if values else "–" for what, values in numbers.items()},
    }


if __name__ == "__main__":
    main()
