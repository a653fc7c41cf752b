import subprocess
import sys

import pytest

from rrcm_dist.config import estimate
from rrcm_dist.config.load import load_recipe, recipe_names

PUBLISHED = {"imagenet/pretrain-s": 19.4e6, "imagenet/pretrain-b": 85.8e6}


def significant(value, digits):
    return float(f"{value:.{digits}g}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_encoder_parameters_are_the_published_ones(name):
    assert significant(estimate.encoder_parameters(load_recipe(name).encoder), 3) == PUBLISHED[name]


def test_flops_of_rrcm_b_are_the_published_ones_without_what_the_last_block_leaves_out():
    recipe = load_recipe("imagenet/pretrain-b", kind="pretrain")
    published, forward = estimate.published_forward_flops(recipe.encoder), estimate.forward_flops(recipe.encoder)
    assert significant(published, 3) == 35.3e9
    assert significant(forward / published, 2) == 0.93
    flops = estimate.step_flops(recipe)
    assert flops / recipe.training.batch / forward == pytest.approx(12, rel=2e-3)
    assert significant(flops * published / forward, 3) == 1.74e15
    assert significant(flops * published / forward * estimate.total_steps(recipe, None), 3) == 1.04e21


@pytest.mark.parametrize("name", [name for name in recipe_names() if "/pretrain" in name or "/finetune" in name])
def test_parameters_are_those_of_the_real_networks(name):
    torch = pytest.importorskip("torch")
    from rrcm_dist.models.rrcm import FinetuningNetwork, PretrainingNetwork

    recipe = load_recipe(name)
    with torch.device("meta"):
        if recipe.kind == "pretrain":
            network = PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
        else:
            network = FinetuningNetwork(recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise, recipe.seed)
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters())
    assert encoder == estimate.encoder_parameters(recipe.encoder)
    assert sum(p.numel() for p in network.parameters()) == estimate.network_parameters(recipe)


def test_a_forward_pass_costs_what_torch_counts():
    torch = pytest.importorskip("torch")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from rrcm_dist.models.encoder import Encoder

    config = load_recipe("demo", kind="demo").pretrain.encoder
    encoder = Encoder(config, sigma_data=0.5)
    # The counter does not see into fused attention on CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        encoder(torch.zeros(2, 3, 32, 32), torch.ones(2))
    assert counter.get_total_flops() == 2 * estimate.forward_flops(config)


def test_steps_follow_from_epochs_and_samples():
    recipe = load_recipe("imagenet/finetune-b-sigma0.5", kind="finetune")
    assert estimate.total_steps(recipe, 1_281_167) == 50 * (1_281_167 // 1024)
    assert estimate.total_steps(recipe, None) is None


def test_a_zero_stage_shares_out_what_it_shards():
    def memory(stage, gpus=8):
        recipe = load_recipe("imagenet/pretrain-b", [f"training.zero_stage={stage}"], kind="pretrain")
        return estimate.memory_bytes(recipe, gpus)

    weights = 4 * estimate.network_parameters(load_recipe("imagenet/pretrain-b", kind="pretrain"))
    assert (memory(0)["optimiser"], memory(1)["optimiser"]) == (2 * weights, 3 * weights / 8)
    assert (memory(1)["gradients"], memory(2)["gradients"]) == (weights, weights / 8)
    assert (memory(2)["weights"], memory(3)["weights"]) == (weights, weights / 8)
    assert [memory(stage)["target network"] for stage in range(4)] == [weights] * 3 + [weights / 8]


def test_activations_follow_the_micro_batch_and_reencoding_follows_their_number():
    recipes = [load_recipe("imagenet/pretrain-b", [f"training.micro_batch={m}"], kind="pretrain") for m in (32, 128)]
    small, large = (estimate.memory_bytes(recipe, 32)["activations"] for recipe in recipes)
    assert large == 4 * small
    again = [estimate.reencoding_flops(recipe, 32) for recipe in recipes]
    assert again[1] == 0
    assert again[0] == pytest.approx(0.75 * 3 / 12 * estimate.step_flops(recipes[0]), rel=2e-3)


def test_activation_checkpointing_keeps_a_block_s_input_and_computes_every_gradient_pass_again():
    recipes = [load_recipe("imagenet/pretrain-b", [f"training.activation_checkpointing={on}"]) for on in (False, True)]
    whole, inputs = (estimate.memory_bytes(recipe, 32)["activations"] for recipe in recipes)
    assert inputs < whole / 4
    more = estimate.reencoding_flops(recipes[1], 32) - estimate.reencoding_flops(recipes[0], 32)
    assert more == 3 * 4096 * estimate.forward_flops(recipes[0].encoder)


def test_a_checkpoint_holds_the_networks_the_moments_and_the_averages():
    pretrain = load_recipe("imagenet/pretrain-b", ["training.averages=[0.999, 0.9999]"], kind="pretrain")
    assert estimate.checkpoint_networks(pretrain) == 6
    assert estimate.checkpoint_networks(load_recipe("imagenet/finetune-b-sigma0.5", kind="finetune")) == 3
    memory = estimate.memory_bytes(pretrain, 8)
    assert memory["averages"] == 2 * memory["weights"]


def test_the_loss_never_takes_memory_for_the_batch_squared():
    def size(batch, gpus):
        recipe = load_recipe("imagenet/pretrain-b", [f"training.batch={batch}", "data.streams=256"], kind="pretrain")
        return estimate.loss_bytes(recipe, gpus)

    assert size(65536, 1) < 4 * 65536**2 / 10
    assert size(65536, 8) < 4 * 65536**2 / 8 / 2


def test_the_loaders_queues_take_the_pixels_of_the_parts_that_are_kept_ready():
    recipe = load_recipe(
        "imagenet/pretrain-b", ["training.batch=4096", "data.workers=4", "data.prefetch=1"], "pretrain"
    )
    part = 32 * 3 * 3 * 224**2
    assert estimate.loader_queue_bytes(recipe, 128) == 4 * 2 * part  # a part a batch, and no worker has less than two
    assert estimate.loader_queue_bytes(recipe, 8) == 16 * part
    assert estimate.loader_queue_bytes(recipe, 1) == 64 * part  # at most so many
    alone = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": 0})})
    assert estimate.loader_queue_bytes(alone, 1) == 0


def test_draws_of_a_certification_are_counted():
    recipe = load_recipe("imagenet/certify-b", kind="certify")
    assert estimate.certified_images(recipe, 50_000) == estimate.certified_images(recipe, None) == 500
    assert estimate.certification_draws(recipe, None) == 500 * 3 * 100_100
    assert estimate.certified_images(load_recipe("imagenet/certify-b", ["images.count=null"]), 1_001) == 11
    assert estimate.certified_images(load_recipe("imagenet/certify-b", ["images={positions: [3, 5]}"]), None) == 2


def test_estimating_needs_no_torch():
    code = "import sys, rrcm_dist.config.describe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
