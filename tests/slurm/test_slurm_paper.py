"""A whole paper on a real Slurm: dependent jobs, a stage that fails, the way out, and the report at the end."""

import json

import pytest
from slurm_hosts import wait_for
from tiny import write_paper

from cluster.record.history import History

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

SECONDS = 180
SITE = """
backend: slurm
ranks_per_node: 1
gpus_per_node: 0
cpus_per_rank: 1
time_limit: 10
partition: main
seconds_before_limit: 30
device: cpu
preflight: false
certification: {workers: 1, head_cpus: 1, cpus_per_worker: 2}
"""
STAGES = ["check-train", "check-held-out", "pretrain", "sigma_0.25", "sigma_0.5", "certificates", "report"]


def job_of(folder, stage):
    return int(History(folder / "paper" / stage).jobs()[-1]["job"])


def logs(folder):
    files = [*folder.glob("paper/*/logs/*/*.log"), *folder.glob("paper/*/cluster/*/*.out")]
    return "\n".join(f"{file}: {file.read_text()[-1500:]}" for file in files)


def test_a_paper_with_a_failed_stage_tells_the_way_out_and_ends_with_a_report(slurm, tmp_path, digits):
    (tmp_path / "site.yaml").write_text(SITE)
    recipe = write_paper(tmp_path, digits, classes=7)
    said = slurm.launch(tmp_path, "submit", "paper", recipe, "--site", "site.yaml")
    assert [line.split(":")[0] for line in said.splitlines()[:7]] == STAGES
    first = {stage: job_of(tmp_path, stage) for stage in STAGES}
    wait_for(lambda: slurm.job(first["sigma_0.5"])["JobState"] == "FAILED", SECONDS, f"the failure: {logs(tmp_path)}")
    assert slurm.wait_for_end(first["sigma_0.25"], SECONDS) == "COMPLETED"
    wait_for(lambda: "Never" in slurm.job(first["certificates"])["Reason"], SECONDS, "Slurm gives the dependants up")
    status = slurm.launch(tmp_path, "status", "paper")
    assert "4 of 7 stages finished" in status
    assert "FAILED: refused (" in status
    assert "certificates and report will never start, and Slurm leaves them waiting for ever" in status

    write_paper(tmp_path, digits)
    said = slurm.launch(tmp_path, "submit", "paper", recipe, "--site", "site.yaml")
    assert [line.split(":")[0] for line in said.splitlines()[:-1]] == STAGES[4:]
    assert slurm.job(first["certificates"])["JobState"] == slurm.job(first["report"])["JobState"] == "CANCELLED"
    assert slurm.wait_for_end(job_of(tmp_path, "report"), SECONDS) == "COMPLETED", logs(tmp_path)
    rows = json.loads((tmp_path / "paper" / "report" / "report.json").read_text())["rows"]
    assert [(row["sigma"], row["images"]) for row in rows] == [(0.25, 4), (0.5, 4)]
    assert "7 of 7 stages finished" in slurm.launch(tmp_path, "status", "paper")
