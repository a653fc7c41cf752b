"""Which checkpoints stay, what they cost, where else they go, and what a run may go on from."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from s3_server import s3_server
from tiny import finetune_recipe, pretrain_recipe

from rrcm_dist.data.index import load_index
from rrcm_dist.distributed.world import join_world
from rrcm_dist.errors import InvalidInput
from rrcm_dist.training.checkpointing.checkpoints import Progress, find_checkpoint, staying
from rrcm_dist.training.finetuning import prepare_finetuning
from rrcm_dist.training.loop import train
from rrcm_dist.training.pretraining import prepare_pretraining
from rrcm_dist.training.run_folder import RunFolder


def run(recipe, allow: tuple[str, ...] = ()):
    prepare = prepare_pretraining if recipe.kind == "pretrain" else prepare_finetuning
    with join_world("cpu") as world:
        return train(prepare(recipe, world), world, allow=allow)


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def changed(recipe, **more):
    return type(recipe).model_validate({**recipe.model_dump(mode="json"), **more})


@pytest.fixture(scope="module")
def mirrored(digits, tmp_path_factory):
    """A finished run of 8 steps, its second place, and its recipe."""
    folder = tmp_path_factory.mktemp("mirrored")
    recipe = finetune_recipe(
        digits, folder / "run", keep_checkpoints=2, keep_every=4, checkpoints_to=str(folder / "second")
    )
    run(recipe)
    return folder, recipe


def test_the_newest_stay_and_those_of_round_steps_for_good(mirrored):
    folder, recipe = mirrored
    assert steps_of(folder / "run" / "checkpoints") == [4, 6, 8]
    names = [f"step-{step:09d}" for step in (2, 4, 6, 8, 10)]
    assert staying(names, names[3], recipe) == set(names[1:4]), "one beyond the newest was damaged and is done again"


def test_every_checkpoint_goes_to_the_second_place_by_the_same_policy(mirrored):
    folder, _ = mirrored
    assert steps_of(folder / "second") == [4, 6, 8]
    assert (folder / "second" / "recipe.yaml").exists()
    for file in (folder / "run" / "checkpoints" / "step-000000008").rglob("*"):
        if file.is_file():
            copy = folder / "second" / file.relative_to(folder / "run" / "checkpoints")
            assert copy.read_bytes() == file.read_bytes()


def test_a_run_without_checkpoints_goes_on_from_the_newest_good_one_of_the_second_place(mirrored, tmp_path, caplog):
    folder, recipe = mirrored
    second = shutil.copytree(folder / "second", tmp_path / "second")
    (second / "step-000000008" / "manifest.json").unlink()  # its copying was cut short
    damaged = second / "step-000000006" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    training = {**recipe.training.model_dump(), "checkpoints_to": str(second)}
    with caplog.at_level(logging.INFO):
        outcome = run(changed(recipe, output=str(tmp_path / "elsewhere"), training=training))
    assert outcome.step == 8
    assert "step-000000006" in caplog.text
    assert "damaged" in caplog.text
    assert "step-000000004" in caplog.text.split("resuming from")[1]
    whole = folder / "run" / "checkpoints" / "step-000000008" / "model.safetensors"
    assert (outcome.checkpoint / "model.safetensors").read_bytes()[-1000:] == whole.read_bytes()[-1000:]


def test_a_second_place_of_another_run_is_refused_and_left_as_it_is(mirrored, tmp_path):
    """Two runs in one place would remove each other's checkpoints."""
    folder, recipe = mirrored
    before = {path: path.stat().st_mtime_ns for path in (folder / "second").rglob("*")}
    other = changed(recipe, output=str(tmp_path / "other"), sigma=0.5)
    with pytest.raises(InvalidInput, match=r"second holds .*sigma: 0.25 there.*another training.checkpoints_to"):
        run(other)
    assert {path: path.stat().st_mtime_ns for path in (folder / "second").rglob("*")} == before
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_what_else_lies_in_the_second_place_is_not_removed(digits, tmp_path):
    second = tmp_path / "second"
    for other in ("exports", "step-000000001-kept"):
        (second / other).mkdir(parents=True)
        (second / other / "manifest.json").write_text("{}")
    run(finetune_recipe(digits, tmp_path / "run", steps=6, keep_checkpoints=2, checkpoints_to=str(second)))
    assert sorted(path.name for path in second.iterdir() if path.is_dir()) == [
        "exports", "step-000000001-kept", "step-000000004", "step-000000006",
    ]  # fmt: skip


def test_a_checkpoint_that_a_machine_does_not_see_is_told(digits, tmp_path):
    recipe = finetune_recipe(digits, tmp_path / "run", steps=2)
    folder = RunFolder(recipe, "identity")
    with pytest.raises(InvalidInput, match="on a disk that every rank shares"):
        folder.check_checkpoint(tmp_path / "elsewhere" / "step-000000002", Progress(2, 48, 1, 1))


def test_the_second_place_may_be_a_bucket(digits, tmp_path):
    with s3_server() as bucket:
        recipe = finetune_recipe(
            digits, tmp_path / "run", steps=4, keep_checkpoints=2, checkpoints_to=f"{bucket}/runs/a"
        )
        run(changed(recipe, training={**recipe.training.model_dump(), "checkpoint_every": 1}))
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(digits, tmp_path / "digits")  # the same samples elsewhere
        data = {**recipe.data.model_dump(), "train": str(tmp_path / "digits" / "train")}
        outcome = run(changed(recipe, data=data))
        assert outcome.step == 4
        assert steps_of(tmp_path / "run" / "checkpoints") == [4]


def test_fewer_shards_than_streams_train_all_the_same(digits, tmp_path):
    """An epoch is dealt to streams by samples, not by shards."""
    recipe = finetune_recipe(digits, tmp_path / "run", steps=2)
    assert len(load_index(recipe.data.train).shards) < recipe.data.streams
    assert run(recipe).step == 2


def test_a_second_place_that_cannot_be_written_to_is_told_before_anything_is_trained(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    recipe = finetune_recipe(digits, tmp_path / "run", checkpoints_to=str(tmp_path / "file" / "below"))
    with pytest.raises(InvalidInput, match=r"training\.checkpoints_to"):
        run(recipe)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_a_checkpoint_costs_is_said(digits, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(finetune_recipe(digits, tmp_path / "run", steps=2))
    assert "step-000000002" in caplog.text
    assert "training stood still for" in caplog.text


def test_another_recipe_is_refused_by_its_keys_and_gone_on_with_where_they_are_allowed(digits, tmp_path):
    recipe = finetune_recipe(digits, tmp_path / "run", checkpoint_every=2)
    run(changed(recipe, training={**recipe.training.model_dump(), "steps": 4}))
    longer = changed(recipe, consistency=7.0)
    with pytest.raises(InvalidInput) as refused:
        run(longer)
    for told in ("consistency: 5.0 there, 7.0 now", "training.steps: 4 there, 8 now", "--allow training.steps"):
        assert told in str(refused.value)
    with pytest.raises(InvalidInput, match=r"consistency: 5.0 there"):
        run(longer, allow=("training.steps",))
    # The run that was allowed to go on may be stopped before its first checkpoint of its own.
    assert json.loads((tmp_path / "run" / "environment.json").read_text())[-1]["start_step"] == 0
    outcome = run(longer, allow=("training.steps", "consistency"))
    assert outcome.step == 8
    assert run(longer).step == 8, "what was allowed once is the run's recipe from then on"


def test_a_checkpoint_copied_from_another_run_is_refused_by_the_keys_that_differ(digits, tmp_path):
    run(finetune_recipe(digits, tmp_path / "one", steps=2))
    other = changed(finetune_recipe(digits, tmp_path / "other", steps=2), sigma=0.5)
    shutil.copytree(tmp_path / "one" / "checkpoints", tmp_path / "other" / "checkpoints")
    with pytest.raises(InvalidInput, match=r"sigma: 0.25 there, 0.5 now"):
        run(other)


def test_an_allowed_change_of_the_network_is_refused_where_the_weights_do_not_fit(digits, tmp_path):
    recipe = pretrain_recipe(digits, tmp_path / "run", steps=2)
    run(recipe)
    wider = changed(
        recipe,
        encoder={**recipe.encoder.model_dump(), "width": 48},
        training={**recipe.training.model_dump(), "steps": 4},
    )
    with pytest.raises(InvalidInput, match=r"is of another network: .*\(1, 1, 32\) there, \(1, 1, 48\) here"):
        run(wider, allow=("encoder", "training.steps"))


def test_a_checkpoint_of_an_earlier_version_is_refused_in_words(digits, tmp_path):
    recipe = finetune_recipe(digits, tmp_path / "run", steps=2)
    outcome = run(recipe)
    manifest = outcome.checkpoint / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["files"]["resume/optimizer.safetensors"]
    manifest.write_text(json.dumps(content))
    (outcome.checkpoint / "resume" / "optimizer.safetensors").unlink()
    with pytest.raises(InvalidInput, match="earlier version"):
        run(recipe)


def test_a_checkpoint_of_a_later_version_is_refused_in_words(tmp_path):
    checkpoint = tmp_path / "step-000000002"
    (checkpoint / "resume").mkdir(parents=True)
    (checkpoint / "resume" / "optimizer.safetensors").touch()
    progress = {"step": 2, "samples_seen": 48, "ranks": 1, "zero_stage": 1, "moon": "full"}
    (checkpoint / "manifest.json").write_text(json.dumps({"progress": progress, "files": {}}))
    with pytest.raises(InvalidInput, match=r"later version .*moon"):
        find_checkpoint(tmp_path)


def test_a_copy_that_failed_is_made_up_when_the_run_is_started_again(mirrored, tmp_path, caplog):
    folder, recipe = mirrored
    second = tmp_path / "second"
    training = {**recipe.training.model_dump(), "checkpoints_to": str(second)}
    again = changed(recipe, output=str(shutil.copytree(folder / "run", tmp_path / "run")), training=training)
    with caplog.at_level(logging.INFO):
        assert run(again).step == 8
    assert "is finished" in caplog.text
    assert steps_of(second) == [8]


def test_a_run_that_shall_begin_anew_fetches_nothing(mirrored, tmp_path):
    folder, recipe = mirrored
    with join_world("cpu") as world, pytest.raises(InvalidInput, match=r"second holds checkpoints: resume"):
        train(prepare_finetuning(changed(recipe, output=str(tmp_path / "new")), world), world, resume=False)
    assert not (tmp_path / "new" / "checkpoints").exists()
    assert steps_of(folder / "second") == [4, 6, 8]
