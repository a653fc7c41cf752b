"""Representation warm-up in a launch: first stage, hand-over, main run; interrupted anywhere, it goes on exactly."""

import json
import os
import shutil
import signal
import weakref
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import finetune_recipe, pretrain_recipe
from warming import BLOCKS, DEPTH, WARMUP_STEPS, alone, launch, own_teacher, warming

from rrcm_dist.cli.training import run_training
from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.config.warmup_costs import WarmupCosts
from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure
from rrcm_dist.evaluation.trained import load_trained
from rrcm_dist.models.exporting_timm import export_timm
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.training import pretraining
from rrcm_dist.training.additions import representation_warmup
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.starting_point import start_encoder
from rrcm_dist.training.warmup_step import WarmupStep, prepare_warmup
from rrcm_dist.training.watching.metrics import MEASURED
from rrcm_dist.warmup.teacher import load_teacher

STEPS = 5


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return own_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def run(digits, teacher, tmp_path_factory):
    """A whole launch."""
    output = tmp_path_factory.mktemp("whole") / "run"
    launch(warming(digits, output, teacher, steps=STEPS))
    return output


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def weights(run: Path) -> dict:
    files = sorted(newest(run).glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def told(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and told(one) == told(other)
    )


def test_a_launch_warms_up_in_a_folder_of_its_own_and_then_trains(run):
    assert told(run / "warmup")[-1]["step"] == WARMUP_STEPS
    assert told(run)[-1]["step"] == STEPS
    alignment = [line["loss"] for line in told(run / "warmup")]
    assert alignment[-1] < alignment[0]
    assert {"alignment", "contrastive", "consistency"} <= told(run)[0].keys()


def test_the_warm_ups_networks_are_gone_before_the_main_run_is_put_together(digits, teacher, tmp_path, monkeypatch):
    engines, alive = [], []

    def remembered(*arguments):
        stage = prepare_warmup(*arguments)
        engines.append(weakref.ref(stage.step.engine))
        return stage

    def prepared(*arguments):
        alive.extend(engine() for engine in engines)
        return prepare_pretraining(*arguments)

    monkeypatch.setattr(representation_warmup, "prepare_warmup", remembered)
    monkeypatch.setattr(pretraining, "prepare_pretraining", prepared)
    run_training(warming(digits, tmp_path / "run", teacher, steps=2), "cpu", "auto")
    assert alive == [None]


def test_every_key_of_the_hand_over_is_accounted_for(run):
    report = json.loads((run / "warmup-handover.json").read_text())
    online = {name for name in load_file(newest(run) / "online.safetensors") if not name.startswith("heads.")}
    early = load_file(newest(run / "warmup") / "early-blocks.safetensors")
    assert report["from"].startswith(str(run / "warmup"))
    assert set(report["loaded"]) | set(report["left_as_initialised"]) == online
    assert set(report["loaded"]) | set(report["unused"]) == early.keys()
    assert all(name.startswith("head.") for name in report["unused"])
    assert {f"encoder.blocks.{block}.mlp.fc1.weight" in report["loaded"] for block in range(BLOCKS)} == {True}
    assert {f"encoder.blocks.{block}.mlp.fc1.weight" in report["loaded"] for block in range(BLOCKS, DEPTH)} == {False}


def refusal_of(recipe: PretrainConfig) -> str:
    with join_world("cpu") as world:
        try:
            prepare_pretraining(recipe, world)
        except RRCMError as error:
            return str(error)
    return ""


def test_a_report_that_cannot_be_written_stops_every_rank(run, digits, teacher, tmp_path):
    shutil.copytree(run / "warmup", tmp_path / "run" / "warmup")
    (tmp_path / "run" / "warmup-handover.json" / "in-its-place").mkdir(parents=True)
    recipe = warming(digits, tmp_path / "run", teacher, steps=STEPS)
    first, second = run_ranks(refusal_of, 2, tmp_path, recipe)
    assert "warmup-handover.json" in first
    assert second == f"rank 0: {first}"


def test_online_and_target_network_begin_with_the_warm_blocks(run, digits, teacher, tmp_path):
    shutil.copytree(run / "warmup", tmp_path / "run" / "warmup")
    early = load_file(newest(run / "warmup") / "early-blocks.safetensors")
    with alone() as world:
        networks = prepare_pretraining(warming(digits, tmp_path / "run", teacher, steps=STEPS), world).step.networks()
    for network in networks.values():
        for name in early:
            if not name.startswith("head."):
                torch.testing.assert_close(network[name], early[name], rtol=0, atol=0)


def test_the_head_goes_on_where_the_term_is_after_the_warm_blocks(run, digits, teacher, tmp_path):
    shutil.copytree(run / "warmup", tmp_path / "run" / "warmup")
    early = load_file(newest(run / "warmup") / "early-blocks.safetensors")
    heads = {}
    with alone() as world:
        for block in (1, BLOCKS):
            recipe = warming(digits, tmp_path / "run", teacher, section={"term": {"after_block": block}}, steps=STEPS)
            heads[block] = prepare_pretraining(recipe, world).step.networks()["online"][
                "heads.alignment.layers.0.weight"
            ]
    assert heads[BLOCKS].equal(early["head.layers.0.weight"])
    assert not heads[1].equal(early["head.layers.0.weight"])
    report = json.loads((tmp_path / "run" / "warmup-handover.json").read_text())
    assert report["unused"] == []
    assert "head.layers.0.weight" in report["into_the_head_of_the_term"]


def test_samples_and_arithmetic_count_on_from_the_warm_up(run, digits, teacher):
    recipe = warming(digits, run, teacher, steps=STEPS)
    costs = WarmupCosts(recipe, load_teacher(recipe.additions.representation_warmup.teacher, recipe.encoder).cost)
    batch, first, last = recipe.training.batch, told(run)[0], told(run)[-1]
    assert [line["samples_seen"] for line in told(run / "warmup")] == [batch * (k + 1) for k in range(WARMUP_STEPS)]
    assert first["samples_seen"] == batch * (WARMUP_STEPS + 1)
    each = step_flops(recipe) + costs.term_step_flops
    assert told(run / "warmup")[-1]["petaflop"] == pytest.approx(costs.warmup_flops / 1e15)
    assert last["petaflop"] == pytest.approx((costs.warmup_flops + STEPS * each) / 1e15)
    manifest = json.loads((newest(run) / "manifest.json").read_text())
    assert manifest["progress"]["samples_seen"] == last["samples_seen"]


@pytest.mark.parametrize("stage", ["warmup", "main"])
def test_interrupted_in_either_stage_the_same_command_goes_on_exactly(
    stage, run, digits, teacher, tmp_path, monkeypatch
):
    from rrcm_dist.training.pretraining_step import PretrainingStep

    recipe = warming(digits, tmp_path / "run", teacher, steps=STEPS)
    cls = WarmupStep if stage == "warmup" else PretrainingStep
    untouched = cls.after_update

    def ask_to_stop(self, step):
        untouched(self, step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(cls, "after_update", ask_to_stop)
        outcome = launch(recipe)
    assert (outcome.interrupted, outcome.step) == (True, 3)
    assert (tmp_path / "run" / "checkpoints").exists() == (stage == "main")
    assert not launch(recipe).interrupted
    assert same(tmp_path / "run" / "warmup", run / "warmup")
    assert same(tmp_path / "run", run)


def test_a_main_run_that_has_begun_does_not_look_for_the_warm_up_again(run, digits, teacher, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "warmup")
    shutil.rmtree(newest(tmp_path / "run"))
    launch(warming(digits, tmp_path / "run", teacher, steps=STEPS))
    assert weights(tmp_path / "run").keys() == weights(run).keys()
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(tmp_path / "run").items())
    assert not (tmp_path / "run" / "warmup").exists()


def test_a_main_run_of_another_warm_up_is_refused(run, digits, teacher):
    other = warming(digits, run, teacher, section={"blocks": 1}, steps=STEPS)
    with pytest.raises(InvalidInput, match=r"representation_warmup\.blocks: 2 there, 1 now"):
        launch(other)


def test_a_folder_of_another_run_is_refused_before_anything_is_warmed_up(digits, teacher, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "recipe.yaml").write_text(dump_recipe(pretrain_recipe(digits, output)))
    with pytest.raises(InvalidInput, match="another recipe"):
        launch(warming(digits, output, teacher))
    assert not (output / "warmup").exists()


def test_a_main_run_that_cannot_be_is_refused_before_anything_is_warmed_up(digits, teacher, tmp_path):
    recipe = warming(digits, tmp_path / "run", teacher)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out": str(tmp_path / "none")})})
    with pytest.raises(InvalidInput, match=r"data\.held_out"):
        launch(recipe)
    assert not (tmp_path / "run" / "warmup").exists()


@pytest.mark.parametrize(
    ("negatives", "profile", "refusal"),
    [
        ({"count": 200}, None, "down to rank 1887"),
        ({"start": STEPS}, None, "would begin after 5 steps"),
        ({"start": 2}, (STEPS, 1), r"training\.profile"),
    ],
)
def test_what_the_main_run_cannot_do_is_refused_before_anything_is_warmed_up(
    negatives, profile, refusal, digits, teacher, tmp_path
):
    recipe = warming(digits, tmp_path / "run", teacher, steps=STEPS, profile=profile)
    values = recipe.model_dump()
    values["additions"]["hard_negatives"] = negatives
    with pytest.raises(InvalidInput, match=refusal):
        launch(PretrainConfig.model_validate(values))
    assert not (tmp_path / "run").exists()


def test_without_a_finished_warm_up_there_is_no_main_run(digits, teacher, tmp_path):
    with alone() as world, pytest.raises(RunFailure, match="no finished warm-up"):
        prepare_pretraining(warming(digits, tmp_path / "run", teacher), world)


def test_without_a_term_there_is_no_head_and_no_teacher_in_the_main_run(run, digits, teacher, tmp_path):
    shutil.copytree(run / "warmup", tmp_path / "run" / "warmup")
    recipe = warming(digits, tmp_path / "run", teacher, section={"term": {"weight": 0.0}}, steps=STEPS)
    with alone() as world:
        training = prepare_pretraining(recipe, world)
    assert not any(name.startswith("heads.") for name in training.step.networks()["online"])
    assert training.work.step_flops == step_flops(recipe)


@pytest.mark.parametrize("network", ["online", "target"])
def test_checkpoints_are_evaluated_exported_and_fine_tuned_without_the_head(network, run, digits, tmp_path):
    trained = load_trained(run, network, torch.device("cpu"))
    assert trained.representations(0.25)(torch.zeros(2, 3, 16, 16)).shape == (2, 32)
    export_timm(trained.file, tmp_path / "timm", 0.25)
    recipe = finetune_recipe(digits, tmp_path / "tuned", run)
    recipe = recipe.model_copy(update={"start_weights": network, "encoder": trained.recipe.encoder})
    tuned = FinetuningNetwork(recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise)
    start_encoder(tuned, recipe)
    assert tuned.encoder.state_dict()["pos_embed"].equal(trained.network.encoder.state_dict()["pos_embed"])


def test_a_warm_ups_own_checkpoint_is_no_encoder(run):
    with pytest.raises(InvalidInput, match="lacks tensors"):
        load_trained(run / "warmup", None, torch.device("cpu"))


def test_a_fresh_machine_goes_on_from_the_second_place_without_warming_up_anew(digits, teacher, tmp_path):
    recipe = warming(digits, tmp_path / "run", teacher, steps=STEPS, checkpoints_to=str(tmp_path / "second"))
    launch(recipe)
    (tmp_path / "run").rename(tmp_path / "before")
    launch(recipe)
    assert not (tmp_path / "run" / "warmup" / "metrics.jsonl").exists(), "its last checkpoint was fetched, no step done"
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "before").keys()
    assert all(tensor.equal(weights(tmp_path / "before")[name]) for name, tensor in weights(tmp_path / "run").items())


def test_without_a_term_a_run_that_has_begun_needs_no_teacher(digits, tmp_path):
    file = own_teacher(tmp_path)
    recipe = warming(digits, tmp_path / "run", file, section={"term": {"weight": 0.0}}, steps=STEPS)
    launch(recipe)
    file.unlink()
    shutil.rmtree(newest(tmp_path / "run"))
    last = told(tmp_path / "run")[-1]
    launch(recipe)
    assert told(tmp_path / "run")[-1] == last
