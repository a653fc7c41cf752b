"""What `--dry-run` prints: the resolved recipe, and an estimate of what it takes."""

import io
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rrcm_dist.config import estimate
from rrcm_dist.config.gpus import GPU, gpu_of_kind
from rrcm_dist.config.keys import AnyRecipe
from rrcm_dist.config.load import dump_recipe, load_recipe
from rrcm_dist.config.paper import paper_recipes
from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PaperConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import gigabytes

MODEL_FLOPS_UTILISATION = 0.4
"""Share of a GPU's peak that is assumed to be reached."""
TRAINING_IMAGES = {1000: ("ImageNet-1k", 1_281_167), 10: ("CIFAR-10", 50_000)}
"""Classes → the dataset that is assumed where the shards are not at hand."""

Rows = list[tuple[str, str, str]]
"""(what, how much, remark)"""


@dataclass(frozen=True)
class Machine:
    """What the estimate is for."""

    gpus: int
    gpu: GPU

    def __str__(self) -> str:
        return f"{self.gpus} {self.gpu.name}"

    def seconds(self, flops: float, precision: str) -> float:
        """Time for `flops` at the assumed utilisation."""
        return flops / (self.gpus * self.peak_tflops(precision) * 1e12 * MODEL_FLOPS_UTILISATION)

    def peak_tflops(self, precision: str) -> float:
        """Peak of one GPU in the network's precision."""
        return self.gpu.half_tflops if precision == "bf16" else self.gpu.single_tflops

    def assumption(self, precision: str) -> str:
        """The remark beside every time."""
        words = precision if precision == "fp32" or self.gpu.has_bf16 else "fp16 (it has no bf16)"
        return f"assuming {MODEL_FLOPS_UTILISATION:.0%} of {self.peak_tflops(precision):g} TFLOP/s in {words}"


def describe(recipe: AnyRecipe, gpus: int = 8, gpu: str = "A800", samples: int | None = None) -> str:
    """The resolved recipe and its cost on `gpus` of a kind in `gpus.GPUS`, as text for a terminal.

    samples: images in the recipe's shards where the caller knows it; else the dataset's published size is assumed.
    """
    if gpus < 1:
        raise InvalidInput(f"a cost is estimated for 1 GPU or more, not {gpus}")
    machine = Machine(gpus, gpu_of_kind(gpu))
    page = io.StringIO()
    console = Console(file=page, width=120)
    for title, rows in _sections(recipe, machine, samples):
        console.print(_table(title, rows))
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    return dump_recipe(recipe) + "\n" + "\n".join(lines) + "\n"


def _table(title: str, rows: Rows) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(min_width=26)
    table.add_column(justify="right", min_width=14)
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    return table


def _sections(recipe: AnyRecipe, machine: Machine, samples: int | None) -> list[tuple[str, Rows]]:
    if isinstance(recipe, DemoConfig):
        told = [(f"Pre-training: {title}", rows) for title, rows in _training(recipe.pretrain, machine, samples)]
        told += [(f"Fine-tuning, each: {title}", rows) for title, rows in _training(recipe.finetune, machine, samples)]
        certification = _certification(recipe.certify, recipe.finetune.encoder, "the demo's", machine, samples)
        return [*told, ("Certification, each", certification)]
    if isinstance(recipe, PaperConfig):
        return _paper(recipe, machine, samples)
    if isinstance(recipe, CertifyConfig):
        encoder, origin = _encoder_of(recipe)
        return [("Certification", _certification(recipe, encoder, origin, machine, samples))]
    return _training(recipe, machine, samples)


def _paper(recipe: PaperConfig, machine: Machine, samples: int | None) -> list[tuple[str, Rows]]:
    stages = paper_recipes(recipe)
    told = [(f"Pre-training: {title}", rows) for title, rows in _training(stages.pretrain, machine, samples)]
    for tuned in stages.finetune:
        sections = _training(tuned, machine, samples)
        told += [(f"Fine-tuning at σ {tuned.sigma:g}: {title}", rows) for title, rows in sections]
    encoder = stages.finetune[0].encoder
    certification = _certification(stages.certify, encoder, "the first fine-tuning's", machine, samples)
    return [*told, ("Certification", certification)]


# --- training --------------------------------------------------------------------------------------------------------


def _training(recipe: PretrainConfig | FinetuneConfig, machine: Machine, samples: int | None) -> list[tuple[str, Rows]]:
    assumed = ""
    if samples is None and recipe.training.epochs and isinstance(recipe, FinetuneConfig):
        name, samples = TRAINING_IMAGES.get(recipe.classes, ("", None))
        assumed = f"assuming {name}, {samples:,} images" if samples else ""
    return [
        ("Network", _network(recipe)),
        ("Work", _work(recipe, samples, assumed)),
        (f"Memory per GPU on {machine} (estimate)", _memory(recipe, machine)),
        (f"Time on {machine} (estimate)", _time(recipe, machine, samples)),
    ]


def _network(recipe: PretrainConfig | FinetuneConfig) -> Rows:
    encoder, width = recipe.encoder, recipe.encoder.width
    rows = [
        ("images", f"3 × {encoder.image_size} × {encoder.image_size}", "[-1, 1] pixels plus noise"),
        ("tokens", f"{estimate.tokens(encoder)} × {width}", f"class, time, {estimate.tokens(encoder) - 2} patches"),
        ("representation", f"{width}", ""),
        ("encoder", millions(estimate.encoder_parameters(encoder)), "parameters"),
    ]
    if isinstance(recipe, PretrainConfig):
        shape = (
            f"parameters, {width} → {recipe.projector.hidden} → {recipe.projector.hidden} → {recipe.projector.output}"
        )
        rows.append(("projector", millions(estimate.projector_parameters(width, recipe.projector)), shape))
    else:
        shape = f"parameters, {width} → {recipe.classes}"
        rows.append(("head", millions(estimate.head_parameters(width, recipe.classes)), shape))
    return rows


def _work(recipe: PretrainConfig | FinetuneConfig, samples: int | None, assumed: str) -> Rows:
    flops, steps = estimate.step_flops(recipe), estimate.total_steps(recipe, samples)
    per_image = flops / recipe.training.batch / estimate.forward_flops(recipe.encoder)
    rows = [
        ("forward pass", quantity(estimate.forward_flops(recipe.encoder), "FLOP"), "per image"),
        (
            "step",
            quantity(flops, "FLOP"),
            f"{recipe.training.batch} images, {per_image:.1f} forward passes' worth each",
        ),
    ]
    if steps is None:
        return [*rows, ("steps", "unknown", "needs the number of training images: the shards are not here")]
    length = f"{recipe.training.epochs} epochs, {assumed or f'{samples:,} images'}" if recipe.training.epochs else ""
    return [*rows, ("steps", f"{steps:,}", length), ("run", f"{steps * flops:.3g} FLOP", "")]


def _memory(recipe: PretrainConfig | FinetuneConfig, machine: Machine) -> Rows:
    uses = estimate.memory_bytes(recipe, machine.gpus)
    share, micro = estimate.shares(recipe, machine.gpus)
    stage = recipe.training.zero_stage
    views = "3 views" if isinstance(recipe, PretrainConfig) else f"{recipe.draws} draws"
    remarks = {
        "optimiser": f"ZeRO stage {stage}",
        "activations": f"{micro} of {share} images at a time, {views}, {recipe.training.precision}",
        "reserved": "context, communication, workspaces",
    }
    rows = [(use, gigabytes(size), remarks.get(use, "")) for use, size in uses.items()]
    total, available = sum(uses.values()), machine.gpu.memory_gb * 1e9
    verdict = f"fits in {machine.gpu.memory_gb:g} GB"
    if total > available:
        verdict = (
            f"DOES NOT FIT in {machine.gpu.memory_gb:g} GB: lower training.micro_batch or raise training.zero_stage"
        )
    return [*rows, ("in all", gigabytes(total), verdict)]


def _time(recipe: PretrainConfig | FinetuneConfig, machine: Machine, samples: int | None) -> Rows:
    precision, batch = recipe.training.precision, recipe.training.batch
    again = estimate.reencoding_flops(recipe, machine.gpus)
    flops, steps = estimate.step_flops(recipe), estimate.total_steps(recipe, samples)
    step_seconds = machine.seconds(flops + again, precision)
    micro = f"; micro-batches cost {again / flops:.0%} more" if again else ""
    rate = batch / step_seconds
    rows = [
        ("step", duration(step_seconds), machine.assumption(precision) + micro),
        ("loaders must deliver", f"{rate:,.0f} images/s", f"{rate / machine.gpus:,.0f} per GPU"),
    ]
    if steps is not None:
        seconds = steps * step_seconds
        rows.append(("run", duration(seconds), f"{seconds * machine.gpus / 3600:,.1f} GPU hours"))
    if recipe.data.streams % machine.gpus:
        told = (
            f"{recipe.data.streams} streams cannot be shared by {machine.gpus} ranks: change data.streams or the GPUs"
        )
        rows.append(("cannot run", "", told))
    return rows


# --- certification ---------------------------------------------------------------------------------------------------


def _encoder_of(recipe: CertifyConfig) -> tuple[EncoderConfig | None, str]:
    """The encoder that is certified, from the recipe beside the checkpoint or, where that is not there, rRCM-B."""
    checkpoint = recipe.classifiers[0].checkpoint
    if checkpoint is None:
        return None, ""
    for folder in (Path(checkpoint), *list(Path(checkpoint).parents)[:2]):
        if (folder / "recipe.yaml").is_file():
            stored = load_recipe(folder / "recipe.yaml")
            if isinstance(stored, FinetuneConfig):
                return stored.encoder, f"of {folder}"
    patch = 16 if recipe.image_size % 16 == 0 and recipe.image_size >= 64 else 4
    if recipe.image_size % patch:
        return None, ""
    assumed = EncoderConfig(image_size=recipe.image_size, patch=patch, width=768, depth=12, heads=12)
    return assumed, f"assuming rRCM-B with patch {patch}: {checkpoint} is not here"


def _certification(
    recipe: CertifyConfig, encoder: EncoderConfig | None, origin: str, machine: Machine, samples: int | None
) -> Rows:
    images = estimate.certified_images(recipe, samples)
    per_image = recipe.n0 + recipe.n
    rows = [
        ("σ", ", ".join(f"{classifier.sigma:g}" for classifier in recipe.classifiers), ""),
        ("images", "unknown" if images is None else f"{images:,}", "per σ"),
        (
            "draws per image",
            f"{'at most ' * (recipe.mode == 'adaptive')}{per_image:,}",
            f"n0 {recipe.n0:,} + n {recipe.n:,}; each one forward pass"
            + "; mode adaptive usually stops after a twentieth (docs/adaptive.md)" * (recipe.mode == "adaptive"),
        ),
    ]
    draws = estimate.certification_draws(recipe, samples)
    if draws is not None:
        rows.append(("forward passes", f"{draws:,}", "in all"))
    if encoder is None:
        return [*rows, ("time", "unknown", "the classifier's cost is not known")]
    forward = estimate.forward_flops(encoder)
    seconds = machine.seconds(per_image * forward, recipe.precision) * machine.gpus
    rows += [
        ("forward pass", quantity(forward, "FLOP"), origin),
        ("one image", duration(seconds), f"on one {machine.gpu.name}, {machine.assumption(recipe.precision)}"),
    ]
    if draws is None:
        return rows
    total = machine.seconds(draws * forward, recipe.precision)
    return [
        *rows,
        ("run", f"{draws * forward:.3g} FLOP", ""),
        (f"on {machine}", duration(total), f"{total * machine.gpus / 3600:,.1f} GPU hours"),
    ]


# --- numbers for people ----------------------------------------------------------------------------------------------


def millions(count: int) -> str:
    """85.8M; small counts in full."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,}"


def quantity(value: float, unit: str) -> str:
    """1.74 PFLOP, with three significant digits."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """A time for people: milliseconds to hours; from two days on, days too."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    hours = f"{seconds / 3600:,.1f} h"
    return hours if seconds < 48 * 3600 else f"{hours} = {seconds / 86400:.1f} days"
