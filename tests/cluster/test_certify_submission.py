"""What a certification becomes on Slurm, and what is refused before, on a machine without Slurm."""

import sys
from pathlib import Path

import pytest

from cluster.__main__ import main
from cluster.backends.slurm import SlurmBackend
from cluster.backends.slurm_certification import CertifySubmission
from cluster.jobs.describe import describe_job
from cluster.site import SITES, SlurmSite, load_site
from rrcm_dist.config.load import load_recipe
from rrcm_dist.errors import InvalidInput

EXPECTED = Path(__file__).parent / "slurm-certify-dry-run.txt"
RECIPE = """
kind: certify
name: tiny
output: /runs/tiny
classifiers: [{sigma: 0.5, function: "nets:net"}]
data: /shards
image_size: 16
n: 1000
"""


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder with a recipe, where there is no Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    Path("recipe.yaml").write_text(RECIPE)


def submission(device="cuda", **certification):
    site = load_site(SlurmSite, SITES / "slurm-shared.yaml", {"device": device, "certification": certification})
    return CertifySubmission(describe_job("certify", "recipe.yaml", (), "auto"), site)


def head(of):
    return of._head(Path("/folder"), Path("/folder/recipe.yaml"))


def test_a_dry_run_prints_the_scripts_of_head_and_workers(here, monkeypatch, capsys):
    site = str(SITES / "slurm-shared.yaml")
    monkeypatch.setattr(sys, "argv", ["cluster", "submit", "certify", "recipe.yaml", "--site", site, "--dry-run"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert capsys.readouterr().out.replace(sys.executable, "PYTHON") == EXPECTED.read_text()


def test_without_slurm_nothing_is_queued(here):
    with pytest.raises(InvalidInput, match="there is no Slurm on this machine"):
        SlurmBackend(submission().site).queue(submission().job)


def test_gpus_have_one_actor_each_and_share_the_cores_and_cpus_one_actor_a_job(here):
    on_gpus = submission(gpus_per_worker=2, cpus_per_worker=8)
    assert head(on_gpus).command[-4:] == ["--device", "cuda", "--cpus-per-worker", "4"]
    on_cpus = submission("auto", gpus_per_worker=0, cpus_per_worker=8)
    assert head(on_cpus).command[-4:] == ["--device", "cpu", "--cpus-per-worker", "8"]


def test_a_head_counts_by_itself_only_where_there_are_no_workers(here):
    assert (head(submission()).cpus, head(submission()).gpus) == (0, 0)
    alone = submission(workers=0, cpus_per_worker=8)
    assert (head(alone).cpus, head(alone).gpus) == (8, 1)
    assert "--cpus-per-task=10" in alone.describe()
    assert "--array" not in alone.describe()


def test_cuda_without_gpus_is_refused(here):
    with pytest.raises(InvalidInput, match=r"device cuda needs GPUs: certification\.gpus_per_worker is 0 here"):
        submission(gpus_per_worker=0).describe()


def test_the_recipe_that_is_kept_is_as_good_as_the_users(here):
    """Default radii that are out of reach are left out of a table; such as were asked for are an error."""
    job = describe_job("certify", "recipe.yaml", (), "auto")
    Path("kept.yaml").write_text(job.recipe_text())
    kept = load_recipe("kept.yaml", (), kind="certify")
    assert kept == job.resolved
    assert kept.model_fields_set >= {"n", "alpha"}
    assert "radii" not in kept.model_fields_set
    named = describe_job("certify", "recipe.yaml", ("radii=[0, 0.5]",), "auto")
    assert "radii" in named.recipe_text()


def test_an_environment_whose_path_has_a_space_is_started_all_the_same(here, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my environment/bin/python")
    assert "exec '/my environment/bin/python' -u -m submitit" in submission().describe()
