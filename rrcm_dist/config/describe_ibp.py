"""What `--dry-run` says of certified training by bounds: network, schedule, work, memory, likely time."""

from rrcm_dist.config import ibp_estimate
from rrcm_dist.config.gpus import Machine
from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.wording import duration, millions, quantity
from rrcm_dist.files import gigabytes

Rows = list[tuple[str, str, str]]
"""(what, how much, remark)"""


def describe_ibp(recipe: IbpConfig, machine: Machine, samples: int | None) -> list[tuple[str, Rows]]:
    """Titled rows; `samples`: images in the recipe's shards, where that is known."""
    steps = recipe.training.steps
    if steps is None and samples is not None and recipe.training.epochs is not None:
        steps = recipe.training.epochs * (samples // recipe.training.batch)
    return [
        ("Network", _network(recipe)),
        ("Schedule", _schedule(recipe)),
        ("Work", _work(recipe, steps)),
        (f"Memory per GPU on {machine} (estimate)", _memory(recipe, machine)),
        (f"Time on {machine} (estimate)", _time(recipe, machine, steps)),
    ]


def _network(recipe: IbpConfig) -> Rows:
    network = recipe.network
    layers = ibp_estimate.network_layers(network, recipe.classes)
    norm = "batch norm" if network.batch_norm else "no batch norm"
    return [
        ("images", f"{network.channels} × {network.image_size} × {network.image_size}", "[0, 1] pixels"),
        ("layers", f"{len(layers)}", f"{network.kind}, {norm}, {network.initialization} initialisation"),
        ("parameters", millions(ibp_estimate.network_parameters(recipe)), ""),
        *((layer.name, millions(layer.parameters), "parameters") for layer in layers),
    ]


def _schedule(recipe: IbpConfig) -> Rows:
    epsilon, optimizer, regularizers = recipe.epsilon, recipe.optimizer, recipe.regularizers
    parts = [name for name in ("tightness", "balance") if getattr(regularizers, name)]
    weighed = f"weight {regularizers.weight:g} · (1 - ε / {epsilon.target:g})"
    return [
        ("ε", f"{epsilon.target:g}", "ℓ∞ radius on [0, 1] pixels"),
        ("at ε = 0", f"{epsilon.clean_epochs} epochs", ""),
        ("ramp", f"{epsilon.ramp_epochs} epochs", "quartic for its first quarter, then linear"),
        ("regularisers", " + ".join(parts) if regularizers.weight and parts else "none", weighed),
        ("learning rate", f"{optimizer.lr:g}", f"× {optimizer.decay:g} after epochs {list(optimizer.milestones)}"),
    ]


def _work(recipe: IbpConfig, steps: int | None) -> Rows:
    flops = ibp_estimate.step_flops(recipe)
    rows = [
        ("forward pass", quantity(ibp_estimate.forward_flops(recipe), "FLOP"), "per image"),
        ("step", quantity(flops, "FLOP"), f"{recipe.training.batch} images: clean, centres, radii; and backward"),
    ]
    if steps is None:
        return [*rows, ("steps", "unknown", "needs the number of training images: the shards are not here")]
    return [*rows, ("steps", f"{steps:,}", ""), ("run", f"{steps * flops:.3g} FLOP", "")]


def _memory(recipe: IbpConfig, machine: Machine) -> Rows:
    uses = ibp_estimate.memory_bytes(recipe, machine.gpus)
    total, available = sum(uses.values()), machine.gpu.memory_gb
    fits = "fits" if total <= available * 1e9 else "DOES NOT FIT"
    rows = [(use, gigabytes(size), "") for use, size in uses.items()]
    return [*rows, ("in all", gigabytes(total), f"{fits} in {available:g} GB")]


def _time(recipe: IbpConfig, machine: Machine, steps: int | None) -> Rows:
    precision = recipe.training.precision
    seconds = machine.seconds(ibp_estimate.step_flops(recipe), precision)
    rows = [("step", duration(seconds), machine.assumption(precision))]
    if steps is not None:
        rows.append(("run", duration(steps * seconds), f"{steps * seconds * machine.gpus / 3600:,.1f} GPU hours"))
    if recipe.data.streams % machine.gpus or recipe.training.batch % machine.gpus:
        told = (
            f"{recipe.data.streams} streams and batch {recipe.training.batch} cannot be shared by {machine.gpus} ranks"
        )
        rows.append(("cannot run", "", told))
    return rows
