"""What is looked at on a node: each check on a good machine, and on one where it must complain."""

import shutil
from importlib import metadata

import pytest
from tiny import finetune_recipe, pretrain_recipe

from cluster.preflight import node_checks
from rrcm_dist.config.estimate import checkpoint_bytes, loader_queue_bytes

TOKEN = "the first node's"


def with_data(recipe, **data):
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


@pytest.fixture
def recipe(digits, tmp_path):
    return pretrain_recipe(digits, tmp_path / "run")


def test_fewer_cores_than_asked_for_are_a_warning():
    assert node_checks.cores(1).problem == ""
    few = node_checks.cores(100_000)
    assert few.warning
    assert "cores where 100000 were asked for" in few.problem


def test_shared_memory_must_hold_the_loaders_queues(recipe, monkeypatch):
    recipe = with_data(recipe, workers=2)
    assert node_checks.shared_memory(recipe, 1, 1).problem == ""
    free = loader_queue_bytes(recipe, 2) * 2 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    assert "loaders' queues may take" in node_checks.shared_memory(recipe, 2, 2).problem
    assert node_checks.shared_memory(recipe, 1, 2).problem == ""
    assert node_checks.shared_memory(with_data(recipe, workers=0), 2, 2).problem == ""


def test_the_output_must_be_the_first_nodes_and_writable(tmp_path):
    token = tmp_path / "token"
    assert "token is not seen (No such file" in node_checks.output(token, TOKEN, "node2").problem
    token.write_text("of another folder")
    assert "is another file than the first node's" in node_checks.output(token, TOKEN, "node2").problem
    token.write_text(TOKEN)
    (tmp_path / "node3").mkdir()
    assert "cannot be written to (Is a directory)" in node_checks.output(token, TOKEN, "node3").problem
    assert node_checks.output(token, TOKEN, "node2").problem == ""
    assert (tmp_path / "node2").read_text() == TOKEN


def test_free_space_must_hold_the_checkpoints_still_to_come(recipe, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    kept = recipe.training.keep_checkpoints
    free = checkpoint_bytes(recipe) * (kept + 1) - 1
    assert node_checks.free_space(run, recipe).problem == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    found = node_checks.free_space(run, recipe)
    assert f"and {kept + 1} more checkpoints take" in found.problem
    assert found.shared
    (run / "checkpoints" / "step-000000002").mkdir(parents=True)
    assert node_checks.free_space(run, recipe).problem == ""


def test_shards_are_read(recipe, digits, tmp_path):
    assert node_checks.shards(recipe).found == "1,797 samples"
    copy = tmp_path / "shards"
    shutil.copytree(digits, copy)
    elsewhere = pretrain_recipe(copy, tmp_path / "run")
    shard = next((copy / "held-out").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[: len(content)] = bytes(len(content))
    shard.write_bytes(content)
    damaged = node_checks.shards(elsewhere)
    assert "data.held_out: sample " in damaged.problem
    assert damaged.shared
    shard.unlink()
    assert f"{shard.name} is missing" in node_checks.shards(elsewhere).problem
    shutil.rmtree(copy / "train")
    assert "data.train: " in node_checks.shards(elsewhere).problem


def test_what_a_fine_tuning_starts_from_must_be_seen_until_it_has_a_checkpoint(recipe, digits, tmp_path):
    run, start = tmp_path / "run", tmp_path / "pretrained"
    assert node_checks.starting_point(run, recipe) is None
    finetuning = finetune_recipe(digits, run, start)
    assert f"start_from: {start} does not exist" in node_checks.starting_point(run, finetuning).problem
    start.mkdir()
    assert node_checks.starting_point(run, finetuning).problem == ""
    start.rmdir()
    checkpoint = run / "checkpoints" / "step-000000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text('{"progress": {"step": 2, "finished": false}}')
    assert node_checks.starting_point(run, finetuning) is None


def test_versions_are_of_what_must_agree():
    versions = {finding.check: finding.found for finding in node_checks.versions()}
    assert versions["version of torch"].startswith("2.")
    assert versions["version of deepspeed"] != "none"
    assert "version of python" in versions
    assert versions["version of rrcm-dist"] == metadata.version("rrcm-dist")
    assert len(versions["version of code"]) == 8
