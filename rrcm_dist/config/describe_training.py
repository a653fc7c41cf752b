"""What `--dry-run` says of a training recipe: network, work, memory, messages, least and likely time."""

from rrcm_dist.config import estimate
from rrcm_dist.config.communication import PROBE_CLASSES, micro_batches, sent_bytes
from rrcm_dist.config.describe_hard_negatives import describe_hard_negatives
from rrcm_dist.config.describe_warmup import describe_warmup
from rrcm_dist.config.gpus import GPUS_PER_NODE, NETWORK_GB_S, Machine
from rrcm_dist.config.roofline import roofline
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.config.warmup_costs import TeacherCost
from rrcm_dist.config.wording import duration, millions, quantity
from rrcm_dist.files import gigabytes

TRAINING_IMAGES = {1000: ("ImageNet-1k", 1_281_167), 10: ("CIFAR-10", 50_000)}
"""Classes → the dataset that is assumed where the shards are not at hand."""

Rows = list[tuple[str, str, str]]
"""(what, how much, remark)"""
Sections = list[tuple[str, Rows]]
"""(title, its rows)"""


def describe_training(
    recipe: PretrainConfig | FinetuneConfig, machine: Machine, samples: int | None, teacher: TeacherCost | None = None
) -> Sections:
    """What the recipe's training takes on a machine; `samples`: images in its shards, where that is known, and so with
    the cost of a representation warm-up's `teacher`."""
    assumed = ""
    if samples is None and recipe.training.epochs and isinstance(recipe, FinetuneConfig):
        name, samples = TRAINING_IMAGES.get(recipe.classes, ("", None))
        assumed = f"assuming {name}, {samples:,} images" if samples else ""
    return [
        ("Network", _network(recipe)),
        ("Work", _work(recipe, samples, assumed)),
        (f"Memory per GPU on {machine} (estimate)", _memory(recipe, machine)),
        *describe_hard_negatives(recipe, machine, samples),
        *_warmup(recipe, machine, teacher),
        (f"Communication per step and rank on {machine}", _communication(recipe, machine)),
        (f"Roofline per step and GPU on {machine}: least times", _roofline(recipe, machine)),
        (f"Time on {machine} (estimate)", _time(recipe, machine, samples)),
    ]


def _warmup(recipe: PretrainConfig | FinetuneConfig, machine: Machine, teacher: TeacherCost | None) -> Sections:
    if isinstance(recipe, FinetuneConfig) or recipe.additions.representation_warmup is None:
        return []
    return [("Representation warm-up, beside all of the others", describe_warmup(recipe, machine, teacher))]


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
    published = estimate.published_forward_flops(recipe.encoder)
    rows = [
        (
            "forward pass",
            quantity(estimate.forward_flops(recipe.encoder), "FLOP"),
            f"per image; {quantity(published, 'FLOP')} with all tokens to the end",
        ),
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
        "activations": f"{micro} of {share} images at a time, {views}, {recipe.training.precision}"
        + ", each block's input only" * recipe.training.activation_checkpointing,
        "loss": f"against all {recipe.training.batch} keys",
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


def _communication(recipe: PretrainConfig | FinetuneConfig, machine: Machine) -> Rows:
    uses, stage = sent_bytes(recipe, machine.gpus), recipe.training.zero_stage
    passes = f"of every backward pass, {micro_batches(recipe, machine.gpus)} micro-batches"
    gathers = ("", "the updated ones", "the updated ones", "for every pass, forward or backward")
    remarks = {
        "keys of the loss": "target projections, less noisy representations; float32, like all",
        "probe's gradient": f"assuming {PROBE_CLASSES} classes",
        "gradients": f"ZeRO stage {stage}: " + (passes if stage >= 2 else "once a step"),
        "parameters": gathers[stage],
    }
    rows = [(use, quantity(size, "B"), remarks.get(use, "")) for use, size in uses.items()]
    return [*rows, ("sent in all", quantity(sum(uses.values()), "B"), "by rings; as much is received")]


def _roofline(recipe: PretrainConfig | FinetuneConfig, machine: Machine) -> Rows:
    roofs = roofline(recipe, machine)
    network = f"assuming {GPUS_PER_NODE} × {NETWORK_GB_S:g} GB/s a node"
    where = "within a node" if machine.gpus <= GPUS_PER_NODE else network
    remarks = {"memory": ", nothing fused but attention", "network": f" one way, {where}"}
    rows = []
    for resource, roof in roofs.items():
        rate = f"at {quantity(roof.rate, roof.unit)}/s"
        told = f"{duration(roof.seconds)} {rate}{remarks.get(resource, '')}"
        rows.append((resource, quantity(roof.amount, roof.unit), told))
    longest = max(roofs, key=lambda resource: roofs[resource].seconds)
    intensity = roofs["arithmetic"].amount / roofs["memory"].amount
    return [*rows, ("longest", longest, f"{intensity:.0f} FLOP per byte of memory traffic")]


def _time(recipe: PretrainConfig | FinetuneConfig, machine: Machine, samples: int | None) -> Rows:
    precision, batch = recipe.training.precision, recipe.training.batch
    again = estimate.reencoding_flops(recipe, machine.gpus)
    flops, steps = estimate.step_flops(recipe), estimate.total_steps(recipe, samples)
    step_seconds = machine.seconds(flops + again, precision)
    micro = f"; computing again costs {again / flops:.0%} more" if again else ""
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
