"""What `--dry-run` prints: the resolved recipe, and an estimate of what it takes."""

import io
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rrcm_dist.config import estimate
from rrcm_dist.config.describe_ibp import describe_ibp
from rrcm_dist.config.describe_training import Rows, Sections, describe_training
from rrcm_dist.config.describe_verify import describe_verification
from rrcm_dist.config.gpus import Machine, gpu_of_kind
from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.keys import AnyRecipe
from rrcm_dist.config.load import dump_recipe, load_recipe
from rrcm_dist.config.paper import paper_recipes
from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PaperConfig
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.config.warmup_costs import TeacherCost
from rrcm_dist.config.wording import duration, quantity
from rrcm_dist.errors import InvalidInput


def describe(
    recipe: AnyRecipe,
    gpus: int = 8,
    gpu: str = "A800",
    samples: int | None = None,
    teacher: TeacherCost | None = None,
) -> str:
    """The resolved recipe and its cost on `gpus` of a kind in `gpus.GPUS`, as text for a terminal.

    samples: images in the recipe's shards where the caller knows it; else the dataset's published size is assumed.
    teacher: what the teacher of a representation warm-up costs where the caller knows it.
    """
    if gpus < 1:
        raise InvalidInput(f"a cost is estimated for 1 GPU or more, not {gpus}")
    machine = Machine(gpus, gpu_of_kind(gpu))
    page = io.StringIO()
    console = Console(file=page, width=120)
    for title, rows in _sections(recipe, machine, samples, teacher):
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


def _sections(recipe: AnyRecipe, machine: Machine, samples: int | None, teacher: TeacherCost | None) -> Sections:
    if isinstance(recipe, DemoConfig):
        told = _titled("Pre-training", describe_training(recipe.pretrain, machine, samples))
        told += _titled("Fine-tuning, each", describe_training(recipe.finetune, machine, samples))
        certification = _certification(recipe.certify, recipe.finetune.encoder, "the demo's", machine, samples)
        return [*told, ("Certification, each", certification)]
    if isinstance(recipe, PaperConfig):
        return _paper(recipe, machine, samples)
    if isinstance(recipe, CertifyConfig):
        encoder, origin = _encoder_of(recipe)
        return [("Certification", _certification(recipe, encoder, origin, machine, samples))]
    if isinstance(recipe, VerifyConfig):
        return [("Verification", describe_verification(recipe, machine, samples))]
    if isinstance(recipe, IbpConfig):
        return describe_ibp(recipe, machine, samples)
    return describe_training(recipe, machine, samples, teacher)


def _paper(recipe: PaperConfig, machine: Machine, samples: int | None) -> Sections:
    stages = paper_recipes(recipe)
    told = _titled("Pre-training", describe_training(stages.pretrain, machine, samples))
    for tuned in stages.finetune:
        told += _titled(f"Fine-tuning at σ {tuned.sigma:g}", describe_training(tuned, machine, samples))
    encoder = stages.finetune[0].encoder
    certification = _certification(stages.certify, encoder, "the first fine-tuning's", machine, samples)
    return [*told, ("Certification", certification)]


def _titled(stage: str, sections: Sections) -> Sections:
    return [(f"{stage}: {title}", rows) for title, rows in sections]


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
