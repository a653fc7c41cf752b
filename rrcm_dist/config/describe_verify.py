"""What `--dry-run` says of an ℓ∞ verification: images, radii, passes."""

from pathlib import Path

from rrcm_dist.config import estimate, ibp_estimate
from rrcm_dist.config.gpus import Machine
from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.verify import VerifyConfig, passes_per_image
from rrcm_dist.config.wording import duration, quantity

BACKWARD = 2
"""A pass of the attack goes back to the pixels, too: about as much work again."""


def describe_verification(recipe: VerifyConfig, machine: Machine, samples: int | None) -> list[tuple[str, str, str]]:
    """Rows of (what, how much, remark); `samples`: images of the recipe's shards, where that is known."""
    images, each = estimate.selected_images(recipe.images, samples), passes_per_image(recipe.attack)
    attack = recipe.attack
    rows = [
        ("ε", ", ".join(f"{epsilon:g}" for epsilon in recipe.epsilons), "ℓ∞ radii on [0, 1] pixels"),
        ("images", "unknown" if images is None else f"{images:,}", "per ε"),
        (
            "passes per image",
            f"{each:,}",
            f"clean, bounds, and PGD: {attack.restarts} restarts of {attack.steps} steps and its last point",
        ),
    ]
    passes = None if images is None else images * len(recipe.epsilons) * each
    if passes is not None:
        rows.append(("forward passes", f"{passes:,}", "in all"))
    trained = _trained_by(recipe)
    if trained is None:
        return [*rows, ("time", "unknown", "the network's cost is not known: its checkpoint is not here")]
    forward = ibp_estimate.forward_flops(trained)
    rows.append(("forward pass", quantity(forward, "FLOP"), f"of {recipe.checkpoint}"))
    if passes is None:
        return rows
    seconds = machine.seconds(passes * BACKWARD * forward, recipe.precision)
    return [*rows, (f"on {machine}", duration(seconds), machine.assumption(recipe.precision))]


def _trained_by(recipe: VerifyConfig) -> IbpConfig | None:
    """The recipe beside the checkpoint, where that is here."""
    if recipe.checkpoint is None:
        return None
    checkpoint = Path(recipe.checkpoint)
    for folder in (checkpoint, *list(checkpoint.parents)[:2]):
        if (folder / "recipe.yaml").is_file():
            stored = load_recipe(folder / "recipe.yaml")
            return stored if isinstance(stored, IbpConfig) else None
    return None
