"""The test cluster is what it says: separate hosts under a real Slurm, which come back, and go without a trace."""

import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from slurm_configuration import ACCOUNT
from slurm_hosts import wait_for

pytestmark = pytest.mark.slow


def test_ranks_run_on_two_hosts_of_their_own(slurm: SlurmCluster) -> None:
    says = "echo $SLURM_PROCID $SLURM_LOCALID $(hostname) $(ps -e -o comm= | grep -c ^slurmd)"
    lines = slurm.run("srun", "--nodes=2", "--ntasks-per-node=2", "bash", "-c", says).splitlines()
    assert sorted(lines) == ["0 0 node1 1", "1 1 node1 1", "2 0 node2 1", "3 1 node2 1"]


def test_ranks_see_the_gpus_that_they_asked_for_and_no_node_has_more_than_eight(slurm: SlurmCluster) -> None:
    says = ("bash", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert slurm.run("srun", "--gpus-per-node=2", *says) == "0,1\n"
    assert slurm.run("srun", "--gpus-per-node=8", *says) == "0,1,2,3,4,5,6,7\n"
    refused = slurm.try_to_run("srun", "--gpus-per-node=9", "true")
    assert refused.returncode != 0
    assert "Requested node configuration is not available" in refused.stderr


def test_accounting_knows_the_end_of_a_job_and_refuses_unknown_accounts(slurm: SlurmCluster) -> None:
    good, bad = slurm.sbatch("true", f"--account={ACCOUNT}"), slurm.sbatch("exit 3")
    assert (slurm.wait_for_end(good), slurm.wait_for_end(bad)) == ("COMPLETED", "FAILED")
    wait_for(lambda: (slurm.sacct(good), slurm.sacct(bad)) == ("COMPLETED", "FAILED"), 20, "sacct tells the ends")
    refused = slurm.try_to_run("sbatch", "--account=nobody", "--wrap=true")
    assert refused.returncode != 0
    assert "Invalid account" in refused.stderr


def test_a_job_that_another_preempts_starts_again_when_that_one_ends(slurm: SlurmCluster) -> None:
    low = slurm.sbatch(
        'echo life $SLURM_RESTART_COUNT; [ "$SLURM_RESTART_COUNT" ] || sleep 100',
        *("--partition=low-now", "--nodes=2", "--exclusive"),
    )
    slurm.wait_for_state(low, "RUNNING")
    high = slurm.sbatch("sleep 2", "--partition=main", "--nodes=1", "--exclusive")
    slurm.wait_for_state(high, "RUNNING")
    assert slurm.job(low)["JobState"] == "PENDING"
    slurm.wait_for_end(high)
    slurm.skip_requeue_delay(low)
    assert slurm.wait_for_end(low) == "COMPLETED"
    assert slurm.output(low).split("\n")[-2] == "life 1"


def test_a_dead_node_is_noticed_and_its_job_starts_again_elsewhere(slurm: SlurmCluster) -> None:
    job = slurm.sbatch("hostname; [ $(hostname) != node1 ] && exit; sleep 100")
    slurm.wait_for_state(job, "RUNNING")
    assert slurm.job(job)["NodeList"] == "node1"
    slurm.kill_node("node1")
    slurm.skip_requeue_delay(job)
    assert slurm.node_states()["node1"].startswith("down")
    assert slurm.wait_for_end(job) == "COMPLETED"
    assert slurm.job(job)["NodeList"] == "node2"
    assert slurm.output(job).split()[-1] == "node2"
    slurm.start_node("node1")
    assert slurm.run("srun", "--nodelist=node1", "hostname") == "node1\n"


def test_jobs_run_on_without_the_daemons_and_the_queue_is_kept(slurm: SlurmCluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = slurm.sbatch(f"until [ -e {go} ]; do sleep 0.1; done", "--nodes=2", "--exclusive")
    waiting = slurm.sbatch("true", "--nodes=2")
    slurm.wait_for_state(running, "RUNNING")
    slurm.wait_until_saved()
    slurm.kill_slurmctld()
    slurm.kill_slurmd("node2")
    slurm.start_slurmd("node2")
    slurm.start_slurmctld()
    assert slurm.job(running)["JobState"] == "RUNNING"
    assert slurm.job(waiting)["JobState"] == "PENDING"
    go.touch()
    assert (slurm.wait_for_end(running), slurm.wait_for_end(waiting)) == ("COMPLETED", "COMPLETED")
    assert (slurm.job(running)["Restarts"], slurm.job(waiting)["Restarts"]) == ("0", "0")


SUM_OF_RANKS = """
import os, torch
from torch import distributed
os.environ.update(RANK=os.environ["SLURM_PROCID"], WORLD_SIZE=os.environ["SLURM_NTASKS"])
distributed.init_process_group("gloo", init_method="env://")
number = torch.tensor([10.0 ** distributed.get_rank()])
distributed.all_reduce(number)
print(os.uname().nodename, int(number), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("address", ["host name", "node address"])
def test_gloo_connects_ranks_on_two_nodes(slurm: SlurmCluster, tmp_path: Path, address: str) -> None:
    program = tmp_path / "sum_of_ranks.py"
    program.write_text(SUM_OF_RANKS)
    first = "$(scontrol show hostnames | head -1)"
    if address == "node address":
        first = f"$(scontrol show node {first} | grep -oP 'NodeAddr=\\K\\S+')"
    job = slurm.sbatch(
        f"export OMP_NUM_THREADS=1 MASTER_ADDR={first} MASTER_PORT=29500; srun {sys.executable} {program}",
        *("--nodes=2", "--ntasks-per-node=1", "--time=2"),
    )
    assert slurm.wait_for_end(job) == "COMPLETED", slurm.output(job)
    assert set(slurm.output(job).splitlines()) >= {"node1 11", "node2 11"}  # torch adds its warnings


SESSION = """
import sys
from slurm_cluster import SlurmCluster
from slurm_hosts import wait_for
cluster = SlurmCluster(nodes=1, accounting=False)
cluster.up()
cluster.sbatch("hostname; exec sleep 1000")
wait_for(lambda: cluster.output(1) == "node1\\n", 20, "the job runs")
print(cluster.folder, cluster.network.interface, *sum(cluster.processes().values(), []), flush=True)
sys.stdin.readline()
cluster.down()
"""


@pytest.mark.parametrize("end", ["down", "killed"])
def test_nothing_of_a_cluster_outlives_its_session(slurm: SlurmCluster, end: str) -> None:
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert session.stdout is not None
    folder, interface, *processes = session.stdout.readline().split()
    assert len(processes) >= 7  # hosts, daemons, a job
    assert all(_runs(pid) for pid in processes)
    assert Path("/sys/class/net", interface).exists()
    assert interface != slurm.network.interface
    if end == "killed":
        session.kill()
    session.communicate("\n")
    wait_for(lambda: not any(_runs(pid) for pid in processes), 10, "all processes end")
    wait_for(lambda: not Path("/sys/class/net", interface).exists(), 10, "the interface goes away")
    if end == "killed":  # the next session sweeps up
        with SlurmCluster(nodes=1, accounting=False):
            pass
    assert not Path(folder).exists()
    assert slurm.node_states() == {"node1": "idle", "node2": "idle"}


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
