"""What a representation warm-up costs, by formula and by counting; what of its section cannot be."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rrcm_dist.config.describe import describe
from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.warmup_costs import TeacherCost, WarmupCosts
from rrcm_dist.errors import InvalidInput
from rrcm_dist.warmup.early_blocks import EarlyBlocks

TEACHER = TeacherCost(parameters=86_000_000, flops=35e9, width=768, input_size=196)
DIGITS = "digits/pretrain-warmup"
SECTION = "additions.representation_warmup"


def row(page, what):
    return next(line for line in page.splitlines() if line.strip().startswith(f"{what}  "))


def test_parameters_and_arithmetic_are_those_of_the_network():
    recipe = load_recipe(DIGITS, kind="pretrain")
    section = recipe.additions.representation_warmup
    teacher = TeacherCost(0, 1e6, 48, 32)
    costs, network = WarmupCosts(recipe, teacher), EarlyBlocks(recipe, section.blocks, section.hidden, teacher.width)
    assert costs.early_parameters == sum(p.numel() for p in network.encoder.parameters())
    assert costs.head_parameters == sum(p.numel() for p in network.head.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, 32, 32), torch.ones(1, 16, 48))
    counted = 3 * counter.get_total_flops() + teacher.flops
    assert costs.warmup_step_flops == pytest.approx(recipe.training.batch * counted, rel=1e-6)
    assert costs.warmup_flops == section.steps * costs.warmup_step_flops


def test_a_dry_run_tells_steps_parameters_arithmetic_and_the_teachers_cost():
    page = describe(load_recipe("imagenet/pretrain-b-warmup"), 32, "A800", teacher=TEACHER)
    assert "5,000 steps" in row(page, "warm-up")
    assert "29.1M" in row(page, "early blocks")
    assert "86.0M" in row(page, "teacher")
    assert "196 × 196 pixels" in row(page, "teacher's pass")
    assert "FLOP" in row(page, "warm-up in all")
    assert "% of the main run's" in row(page, "warm-up in all")
    assert "more each step" in row(page, "term")


def test_a_dry_run_without_the_teacher_says_that_its_cost_is_left_out():
    assert "weights are not here" in row(describe(load_recipe("imagenet/pretrain-b-warmup")), "teacher")


def test_a_term_of_no_weight_costs_nothing():
    recipe = load_recipe(DIGITS, [f"{SECTION}.term.weight=0"], kind="pretrain")
    assert WarmupCosts(recipe, TEACHER).term_step_flops == 0
    assert WarmupCosts(load_recipe(DIGITS, kind="pretrain"), TEACHER).term_step_flops > step_flops(recipe)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (f"{SECTION}.blocks=5", "blocks 5 is more than encoder.depth 4"),
        (f"{SECTION}.term.after_block=4", "after_block 4 must be below encoder.depth 4"),
        (f"{SECTION}.optimizer.warmup=100", "optimizer.warmup 100 does not end before"),
        (f"{SECTION}.term.weight=-1", "must be greater than or equal to 0"),
        (f"{SECTION}.teacher.wheights=x", f"did you mean {SECTION}.teacher.weights"),
        (f"{SECTION}.steps=0", "must be greater than or equal to 1"),
    ],
)
def test_a_section_that_cannot_be_is_refused(override, told):
    with pytest.raises(InvalidInput) as error:
        load_recipe(DIGITS, [override], kind="pretrain")
    assert told in str(error.value)


def test_without_a_term_an_encoder_may_have_one_block():
    words = ["encoder.depth=1", f"{SECTION}.blocks=1"]
    with pytest.raises(InvalidInput, match=r"set term\.weight to 0"):
        load_recipe(DIGITS, words, kind="pretrain")
    load_recipe(DIGITS, [*words, f"{SECTION}.term.weight=0"], kind="pretrain")
