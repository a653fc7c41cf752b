"""Whole runs whose shards are in a store: the bits of a run from the local folder; the other doors take URLs, too."""

import json
from pathlib import Path

import pytest
from command import rrcm
from safetensors.torch import load_file
from tiny import IMAGE_SIZE, certify_recipe, finetune_recipe, pretrain_recipe

from benchmarks.range_server import range_server
from cluster.jobs.inputs import check_paths
from cluster.preflight import node_checks
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.training.watching.metrics import MEASURED
from shards.__main__ import main as shards_main

NETWORK = f"""
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * {IMAGE_SIZE} ** 2, 10))
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def server(digits: Path):
    with range_server(digits) as running:
        yield running


def result_of(run: Path) -> tuple[list[dict], dict, str]:
    """Metrics, weights and identity of the data."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    weights = {
        f"{file.stem}/{name}": tensor.tolist()
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    return metrics, weights, (run / "data.json").read_text()


@pytest.mark.slow
def test_pretraining_from_a_store_is_that_from_the_folder(server, digits, tmp_path, monkeypatch, capfd) -> None:
    results = []
    for name, place in (("local", str(digits)), ("stored", server.url)):
        recipe = pretrain_recipe(digits, tmp_path / name, steps=4)
        data = {"train": f"{place}/train", "held_out": f"{place}/held-out"}
        file = tmp_path / f"{name}.yaml"
        file.write_text(dump_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})))
        workers = 2 if name == "stored" else 0
        code, _, err = rrcm(monkeypatch, capfd, "pretrain", file, f"data.workers={workers}", "--device", "cpu")
        assert code == 0, err
        results.append(result_of(tmp_path / name))
    assert len(results[0][0]) >= 4
    assert len(server.asked(".tar")) > 10
    assert results[0] == results[1]


def test_certificates_from_a_store_are_those_from_the_folder(server, digits, tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "networks_in_stores.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = certify_recipe(digits, tmp_path / "run", tmp_path)
    file = tmp_path / "certify.yaml"
    file.write_text(dump_recipe(recipe))
    server.behave()
    logs = []
    for name, place in (("local", str(digits)), ("stored", server.url)):
        function = "classifiers=[{sigma: 0.25, function: 'networks_in_stores:net'}]"
        words = (function, f"data={place}/held-out", f"output={tmp_path / name}")
        code, _, err = rrcm(monkeypatch, capfd, "certify", file, *words)
        assert code == 0, err
        lines = (tmp_path / name / "sigma_0.25.tsv").read_text().splitlines()
        logs.append([[word for word in line.split("\t") if not word.startswith("0:00:")] for line in lines])
    assert logs[0] == logs[1]
    assert len(logs[0]) > 3
    code, _, err = rrcm(
        monkeypatch, capfd, "certify", file, function, f"data={server.url}/held-out", f"output={tmp_path / 'local'}"
    )
    assert code == 0, err  # the ledger takes them for the same images


def test_a_dry_run_counts_the_samples_of_a_store(server, digits, tmp_path, monkeypatch, capfd) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(finetune_recipe(digits, tmp_path / "run")))
    server.behave()
    counts = []
    for place in (digits, server.url):
        code, out, _ = rrcm(monkeypatch, capfd, "finetune", file, f"data.train={place}/train", "--dry-run")
        counts.append([line for line in out.splitlines() if " images" in line])
        assert code == 0
    assert counts[0] == counts[1] != []
    code, _, _ = rrcm(monkeypatch, capfd, "finetune", file, f"data.train={server.url}/nowhere", "--dry-run")
    assert code == 0


def test_mistakes_with_stores_are_told_with_their_key(server, digits, tmp_path, monkeypatch, capfd) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(pretrain_recipe(digits, tmp_path / "run")))
    server.behave()
    for url, told in (
        (f"{server.url}/nowhere", f"data.train: {server.url}/nowhere/index.json is not there"),
        ("zzz://host/shards", "data.train: zzz://host/shards names no store"),
    ):
        code, _, err = rrcm(monkeypatch, capfd, "pretrain", file, f"data.train={url}", "--device", "cpu")
        assert code == 2
        assert told in err
        assert "Traceback" not in err


def shards_command(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["shards", *words])
    try:
        shards_main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_info_and_verify_take_urls(server, digits: Path, monkeypatch, capsys) -> None:
    server.behave()
    url = f"{server.url}/held-out"
    figures = []
    for place in (str(digits / "held-out"), url):
        code, out = shards_command(monkeypatch, capsys, "info", place, "--json")
        assert code == 0
        figures.append(json.loads(out) | {"folder": None})
    assert figures[0] == figures[1]
    code, out = shards_command(monkeypatch, capsys, "verify", url, "--jobs", "1", "--decode")
    assert code == 0
    assert f"{url}: " in out
    assert "are whole, every image decoded" in out
    server.behave(only="shard-000000.tar", corrupt=1)
    code, out = shards_command(monkeypatch, capsys, "verify", url, "--jobs", "1")
    assert code == 1
    assert "shard-000000.tar: " in out


def test_what_looks_at_paths_before_a_job_lets_urls_pass(server, digits: Path, tmp_path: Path, monkeypatch) -> None:
    server.behave()
    check_paths({"data.train": "s3://bucket/train", "data.held_out": None})
    recipe = pretrain_recipe(digits, tmp_path / "run")
    data = {"train": f"{server.url}/train", "held_out": None, "store_patience": 2.0}
    remote = recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})
    assert node_checks.shards(remote).problem == ""
    server.behave(only=".tar", corrupt=10**6)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    found = node_checks.shards(remote)
    assert "is damaged: `python -m shards verify" in found.problem
