"""What `--dry-run` says of a representation warm-up: teacher, first stage, term."""

from rrcm_dist.config import estimate
from rrcm_dist.config.gpus import Machine
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.config.warmup_costs import TeacherCost, WarmupCosts, early_parameters
from rrcm_dist.config.wording import duration, millions, quantity
from rrcm_dist.files import gigabytes

Rows = list[tuple[str, str, str]]
"""(what, how much, remark)"""


def describe_warmup(recipe: PretrainConfig, machine: Machine, teacher: TeacherCost | None) -> Rows:
    """Of a recipe with `additions.representation_warmup`; `teacher` None where it is not at hand."""
    section = recipe.additions.representation_warmup
    assert section is not None
    named = section.teacher.model or section.teacher.weights
    blocks = f"parameters: embeddings and {section.blocks} of {recipe.encoder.depth} blocks"
    rows = [
        ("early blocks", millions(early_parameters(recipe.encoder, section.blocks)), blocks),
        ("warm-up", f"{section.steps:,} steps", f"of {recipe.training.batch} images, before the steps above"),
    ]
    if teacher is None:
        return [*rows, ("teacher", "unknown", f"{named}: its weights are not here, and so its cost is left out")]
    costs = WarmupCosts(recipe, teacher)
    size, whole = teacher.input_size, costs.warmup_flops
    seconds = machine.seconds(whole, recipe.training.precision)
    rows += [
        ("teacher", millions(teacher.parameters), f"parameters, frozen: {named}"),
        ("teacher in memory", gigabytes(4 * teacher.parameters), "float32, whole on every GPU"),
        ("teacher's pass", quantity(teacher.flops, "FLOP"), f"per image, brought to {size} × {size} pixels"),
        ("alignment head", millions(costs.head_parameters), "parameters; one in the warm-up, one for the term"),
        ("warm-up step", quantity(costs.warmup_step_flops, "FLOP"), "teacher's passes included"),
        ("warm-up in all", f"{whole:.3g} FLOP", f"{_of_main(recipe, whole)}{duration(seconds)} on {machine}"),
    ]
    if not section.term.weight:
        return [*rows, ("term", "none", "term.weight is 0")]
    share = costs.term_step_flops / estimate.step_flops(recipe)
    block, halving = section.term_block(recipe.encoder), section.term.halving_steps
    remark = f"after block {block}: {share:.1%} more each step; λ {section.term.weight:g}, half every {halving:,} steps"
    return [*rows, ("term", quantity(costs.term_step_flops, "FLOP"), remark)]


def _of_main(recipe: PretrainConfig, flops: float) -> str:
    steps = estimate.total_steps(recipe, None)
    return f"{flops / (steps * estimate.step_flops(recipe)):.1%} of the main run's; " if steps else ""
