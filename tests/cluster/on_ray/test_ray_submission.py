"""What is submitted to a Ray cluster, and what is refused before."""

import shutil
import socket
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import command
import pytest
from standing_ray import SITE
from tiny import pretrain_recipe

from cluster.on_ray import rank_host, ranks
from cluster.on_ray.rank_host import HostFacts
from cluster.on_ray.ranks import _check
from cluster.record.history import Cause, History
from cluster.site import SITES, RaySite, load_site
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput, RunFailure

TOKEN = "RAY_AUTH_TOKEN"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(pretrain_recipe(Path("/shards"), tmp_path / "run")))
    return tmp_path


@pytest.fixture
def cluster(monkeypatch, capsys, folder):
    """`python -m cluster …` in a folder with a recipe: (exit code, standard output, error)."""
    monkeypatch.chdir(folder)

    return partial(command.cluster, monkeypatch, capsys)


def submit(cluster, address, *arguments, ranks=2):
    Path("site.yaml").write_text(SITE.format(address=address, ranks=ranks))
    return cluster("submit", "pretrain", "recipe.yaml", "--site", "site.yaml", *arguments)


def test_a_dry_run_prints_the_entrypoint_and_needs_no_cluster(cluster, folder):
    code, out, err = submit(cluster, "http://nowhere.invalid:8265", "--dry-run")
    assert (code, err) == (0, "")
    first, entrypoint, uses = out.replace(sys.executable, "PYTHON").replace(str(folder), "HERE").splitlines()
    assert first == "a Ray job at http://nowhere.invalid:8265:"
    assert entrypoint.strip() == (
        "cd HERE && exec PYTHON -m cluster.on_ray.drive HERE/run JOB HERE/run/cluster/submission-1/site.yaml "
        "pretrain HERE/run/cluster/submission-1/recipe.yaml --resume auto --device cpu"
    )
    assert uses == "which uses 2 ranks, each with 1 CPUs; their output: HERE/run/logs/life-K/rank-R.log"
    assert not (folder / "run").exists()


def test_where_no_cluster_is_it_is_said(cluster, folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening
        code, _, err = submit(cluster, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert code == 1
    assert "error: no Ray cluster takes jobs at http://127.0.0.1:" in err
    assert not (folder / "run").exists()


@pytest.mark.parametrize(("changes", "told"), [
    ({"address": "10.0.0.1:8265"}, "address: "),
    ({"gpus_per_rank": 2}, "gpus_per_rank: must be less than or equal to 1"),
    ({"gpu_per_rank": 1}, "did you mean gpus_per_rank?"),
])  # fmt: skip
def test_problems_of_a_site_file_are_told(changes, told):
    with pytest.raises(InvalidInput) as refused:
        load_site(RaySite, SITES / "ray.yaml", changes)
    assert told in str(refused.value)


def test_the_projects_site_file_holds_every_key():
    assert read_yaml((SITES / "ray.yaml").read_text(), "").keys() == RaySite.model_fields.keys()


def test_a_node_with_other_versions_or_another_file_system_is_named(monkeypatch):
    versions = rank_host.versions_here()
    facts = rank_host.HostFacts("id", "node7", "10.0.0.7", 1, versions | {"torch": "1.0"}, ())
    with pytest.raises(RunFailure, match=r"node node7 runs torch 1\.0 instead of \d"):
        _check(facts)
    with pytest.raises(RunFailure, match="node node7 does not see /runs/b: "):
        _check(rank_host.HostFacts("id", "node7", "10.0.0.7", 1, versions, ("/runs/b",)))


def test_without_ray_the_message_says_what_to_install(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = submit(cluster, "http://127.0.0.1:8265")
    assert code == 2
    assert "pip install 'rrcm-dist[cluster]'" in err


def test_the_status_is_told_from_the_run_folder_where_the_cluster_is_gone(cluster, folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        site = {"backend": "ray", "address": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        history = History(folder / "run")
        history.add_job("rrcm-pretrain-tiny-1", "pretrain", folder / "recipe.yaml", ["submit"], site)
        history.end(history.begin("rrcm-pretrain-tiny-1", 0), Cause.CANCELLED, 50)
        code, out, _ = cluster("status", "run")
        assert code == 0
        assert "job rrcm-pretrain-tiny-1, last known: cancelled (no Ray cluster takes jobs at " in out
        code, _, err = cluster("cancel", "run")
    assert code == 2
    assert "is neither queued nor running" in err


@pytest.mark.slow
@pytest.mark.distributed
def test_what_a_cluster_cannot_take_is_told_before_it_is_submitted(ray, cluster, folder, monkeypatch):
    code, _, err = submit(cluster, ray.address, ranks=3)
    assert code == 2
    assert (
        f"3 × (1 CPUs, 0 GPUs) is more than the Ray cluster at {ray.address} has: 2 CPUs and 0 GPUs on 2 nodes" in err
    )
    monkeypatch.setenv(TOKEN, "0" * 64)
    code, _, err = submit(cluster, ray.address)
    assert code == 1
    assert "refuses the token of RAY_AUTH_TOKEN" in err
    monkeypatch.delenv(TOKEN)
    monkeypatch.setenv("HOME", str(folder))
    code, _, err = submit(cluster, ray.address)
    assert code == 1
    assert "asks for a token: give it in RAY_AUTH_TOKEN" in err
    assert not (folder / "run").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_a_job_of_somebody_elses_is_not_touched(ray, cluster):
    from cluster.on_ray.jobs_api import RayCluster

    theirs = RayCluster(ray.address)._jobs.submit_job(entrypoint=f"{shutil.which('sleep')} 600")
    code, _, err = cluster("cancel", theirs)
    assert code == 2
    assert f"job {theirs} is not a run of ours" in err
    code, _, err = cluster("status", "rrcm-nothing")
    assert code == 2
    assert "knows no job rrcm-nothing: name the run folder" in err
    assert ray.job_state(theirs) in ("PENDING", "RUNNING")
    RayCluster(ray.address).stop(theirs)


def test_actors_that_are_gone_have_lost_their_node_only_where_one_is_dead(monkeypatch):
    monkeypatch.setattr(ranks, "NODE_DEATH_SECONDS", 0.3)
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.05)
    nodes = [{"NodeID": name, "Alive": True} for name in ("one", "two")]
    made = object.__new__(ranks.Ranks)
    made._ray = SimpleNamespace(nodes=lambda: nodes)
    made._alive_before = made._alive()
    lost = [ranks.LostRank(0, HostFacts("two", "host-two", "", 0, {}, ()), "")]
    assert not made.lost_a_node()
    assert made.dead_nodes(lost) == []
    nodes[1]["Alive"] = False
    assert made.lost_a_node()
    assert made.dead_nodes(lost) == ["host-two"]
