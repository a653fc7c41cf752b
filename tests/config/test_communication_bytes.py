import pytest

from rrcm_dist.config import estimate
from rrcm_dist.config.communication import gathered_parameters, reduced_parameters, sent_bytes, trained_parameters
from rrcm_dist.config.load import load_recipe


def pretrain(stage, micro_batch="null", *more):
    changes = [f"training.zero_stage={stage}", f"training.micro_batch={micro_batch}", *more]
    return load_recipe("imagenet/pretrain-b", changes, kind="pretrain")


def test_one_rank_sends_nothing():
    assert sum(sent_bytes(pretrain(3), 1).values()) == 0


def test_an_all_reduce_sends_twice_a_reduce_scatter():
    stages = [sent_bytes(pretrain(stage), 32)["gradients"] for stage in range(4)]
    assert stages[0] == stages[1] == stages[2] == 2 * stages[3]
    assert stages[0] == 2 * 31 / 32 * 4 * trained_parameters(pretrain(0))


def test_a_frozen_patch_embedding_is_not_reduced():
    recipe = pretrain(1)
    frozen = estimate.network_parameters(recipe) - trained_parameters(recipe)
    assert frozen == 3 * 16 * 16 * 768 + 768


def test_stages_0_and_1_reduce_once_a_step_and_2_and_3_every_micro_batch_s_encoder():
    assert [reduced_parameters(pretrain(stage, 32), 32) for stage in (0, 1)] == [trained_parameters(pretrain(0))] * 2
    projector = estimate.projector_parameters(768, pretrain(0).projector)
    encoder = trained_parameters(pretrain(0)) - projector
    assert [reduced_parameters(pretrain(stage, 32), 32) for stage in (2, 3)] == [4 * encoder + projector] * 2


def test_stage_3_gathers_for_every_pass():
    encoder, projector = (
        estimate.encoder_parameters(pretrain(3).encoder),
        3 * (768 * 4096 + 4096**2 + 4096 * 256 + 4 * 4096),
    )
    assert gathered_parameters(pretrain(0), 32) == 0
    assert gathered_parameters(pretrain(2), 32) == trained_parameters(pretrain(2))
    assert gathered_parameters(pretrain(3), 32) == 4 * encoder + projector
    assert gathered_parameters(pretrain(3, 32), 32) == 19 * encoder + projector


@pytest.mark.parametrize("micro_batch", ["null", 32])
def test_fine_tuning_gathers_a_pass_forward_and_one_backward_per_micro_batch(micro_batch):
    changes = ["training.zero_stage=3", f"training.micro_batch={micro_batch}"]
    recipe = load_recipe("imagenet/finetune-b-sigma0.5", changes, kind="finetune")
    cuts = 1 if micro_batch == "null" else 4
    assert gathered_parameters(recipe, 8) == 2 * cuts * estimate.network_parameters(recipe)
    assert "keys of the loss" not in sent_bytes(recipe, 8)
