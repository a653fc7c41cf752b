"""The running curve in Weights & Biases: offline, read back from the files that would be sent."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from wandb_runs import records, told

from rrcm_dist.certification.watching.snapshot import LevelState, Snapshot
from rrcm_dist.certification.watching.wandb_curve import WandbCurve, point
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.tracking import ID_FILE

pytest.importorskip("wandb")

RECIPE = CertifyConfig.model_validate({
    "name": "curve", "output": "run", "data": "shards", "image_size": 32, "tracking": {"wandb": "offline"},
    "classifiers": [{"sigma": 0.25, "function": "nets:one"}, {"sigma": 0.5, "function": "nets:one"}],
})  # fmt: skip
QUARTER = LevelState(0.25, 10, decided=3, failed=1, radii=(0.0, 0.25), certified=(3, 1), draws=5000, draws_saved=900)
HALF = LevelState(0.5, 10, decided=0, failed=0, radii=(0.0, 0.25), certified=(0, 0), draws=0, draws_saved=0)


def snapshot(seconds: float, *levels: LevelState) -> Snapshot:
    values = dict.fromkeys(Snapshot.__dataclass_fields__, 0)
    values |= {"seconds": seconds, "draws": 6000, "draws_per_second": 1500.0, "levels": levels or (QUARTER, HALF)}
    return Snapshot(**{**values, "worker_draws_per_second": {"a": 1000.0, "b": 500.0}})


def test_every_level_and_radius_is_told_and_what_is_not_decided_is_left_out(tmp_path: Path) -> None:
    curve = WandbCurve(RECIPE, tmp_path)
    curve.update(snapshot(1.0))
    curve.close()
    line, chart = told(tmp_path)
    assert line == {
        "images_decided": 3, "images_failed": 1, "seconds": 1.0, "draws": 6000, "draws_per_second": 1500.0,
        "draws_saved": 900, "workers": 2, "blocks_retried": 0,
        "sigma_0.25/images_decided": 3, "sigma_0.25/images_failed": 1, "sigma_0.25/draws": 5000,
        "sigma_0.25/draws_saved": 900, "sigma_0.25/certified_accuracy_at_0": 0.75,
        "sigma_0.25/certified_accuracy_at_0.25": 0.25,
        "sigma_0.5/images_decided": 0, "sigma_0.5/images_failed": 0, "sigma_0.5/draws": 0, "sigma_0.5/draws_saved": 0,
    }  # fmt: skip
    assert chart["images_decided"] == 3


def test_no_radius_is_rounded_in_a_name() -> None:
    level = replace(QUARTER, radii=(0.1234567, 0.12345671), certified=(1, 0))
    assert point(snapshot(1.0, level))["sigma_0.25/certified_accuracy_at_0.1234567"] == 0.25


def test_the_last_state_is_told_and_those_in_quick_succession_are_not(tmp_path: Path) -> None:
    curve = WandbCurve(RECIPE, tmp_path)
    for seconds, decided in [(1.0, 1), (2.0, 2), (10.9, 3), (11.0, 4), (12.0, 5), (13.0, 6)]:
        curve.update(snapshot(seconds, replace(QUARTER, decided=decided, certified=(1, 0))))
    curve.close()
    *points, chart = told(tmp_path)
    assert [line["images_decided"] for line in points] == [1, 4, 6]
    assert chart["images_decided"] == 6


def test_the_curve_over_the_radii_is_drawn_at_the_end(tmp_path: Path) -> None:
    curve = WandbCurve(RECIPE, tmp_path)
    curve.update(snapshot(1.0, QUARTER, replace(HALF, decided=2, certified=(2, 1))))
    curve.close()
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    rows = json.loads(table.read_text())["data"]
    assert sorted((row[1], row[0], row[2]) for row in rows) == [
        ("σ 0.25", 0.0, 0.75), ("σ 0.25", 0.25, 0.25), ("σ 0.5", 0.0, 1.0), ("σ 0.5", 0.25, 0.5),
    ]  # fmt: skip


def test_the_recipe_is_the_configuration(tmp_path: Path) -> None:
    WandbCurve(RECIPE, tmp_path).close()
    (run,) = [record.run for record in records(tmp_path) if record.WhichOneof("record_type") == "run"]
    configuration = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: configuration[key] for key in RECIPE.model_dump()} == RECIPE.model_dump(mode="json")
    assert (run.display_name, run.project) == ("curve", "rrcm-dist")


def test_a_resumed_certification_is_the_same_run(tmp_path: Path) -> None:
    for decided in (2, 4):
        curve = WandbCurve(RECIPE, tmp_path)
        curve.update(snapshot(1.0, replace(QUARTER, decided=decided, certified=(1, 0))))
        curve.close()
    names = {file.stem.removeprefix("run-") for file in tmp_path.glob("wandb/*/run-*.wandb")}
    assert names == {(tmp_path / ID_FILE).read_text().strip()}
    assert [line["images_decided"] for line in told(tmp_path)] == [2, 2, 4, 4]


def test_a_failure_is_said_once_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curve = WandbCurve(RECIPE, tmp_path)
    curve._run.finish()  # as after a lost connection: every further call raises
    for seconds in (1.0, 20.0, 40.0):
        curve.update(snapshot(seconds))
    curve.close()
    assert capsys.readouterr().err.count("the certification goes on without it") == 1
