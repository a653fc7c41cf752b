"""The configuration files of the test cluster, as text.

Slurm 22.05 (Debian 12) and later; no systemd, no cgroups: processes are tracked by their parents.
"""

from collections.abc import Sequence
from pathlib import Path

DATABASE_PORT = 3306
ACCOUNT = "lab"
GRACE_SECONDS = 10  # between a preemption's signal and its end in partition `low`
NODE_TIMEOUT_SECONDS = 8  # without a sign of a node before Slurm may call it down
MESSAGE_TIMEOUT_SECONDS = 5  # a dead node is down after two or three unanswered messages: 14 to 18 s, measured
KILL_WAIT_SECONDS = 5  # between SIGTERM and SIGKILL


def hosts_file(addresses: dict[str, str]) -> str:
    """/etc/hosts of every node; `addresses` by host name."""
    return "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **addresses}.items())


def slurm_conf(folder: Path, addresses: dict[str, str], cpus: int, gpus: int, memory_mib: int, accounting: bool) -> str:
    """slurm.conf: host `head` controls, all other hosts are nodes.

    Partitions: `main`; `low` and `low-now`, which jobs in `main` preempt with and without grace; `short`, of at most
    two minutes.
    """
    nodes = [name for name in addresses if name != "head"]
    node_lines = "".join(
        f"NodeName={name} NodeHostname={name} NodeAddr={addresses[name]} CPUs={cpus} RealMemory={memory_mib} "
        f"Gres=gpu:{gpus} State=UNKNOWN\n"
        for name in nodes
    )
    return f"""\
ClusterName=rrcm
SlurmctldHost=head({addresses["head"]})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
MailProg=/bin/true

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# More CPUs than this machine has.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PriorityType=priority/basic

# Short, so that tests need not wait; a node that returns is used again.
SlurmctldTimeout=10
SlurmdTimeout={NODE_TIMEOUT_SECONDS}
MessageTimeout={MESSAGE_TIMEOUT_SECONDS}
KillWait={KILL_WAIT_SECONDS}
UnkillableStepTimeout=30
ReturnToService=2
MinJobAge=300

JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

{node_lines}
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=INFINITE DefMemPerCPU=100
PartitionName=main Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=short MaxTime=2 PriorityTier=10 PreemptMode=OFF
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime={GRACE_SECONDS}
PartitionName=low-now PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
{_accounting(folder, addresses["head"]) if accounting else ""}"""


def _accounting(folder: Path, head: str) -> str:
    return f"""\

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={head}
AccountingStoragePass={folder}/munge.socket
# An account that nobody has made is refused.
AccountingStorageEnforce=associations
"""


def slurmdbd_conf(folder: Path) -> str:
    """slurmdbd.conf of the accounting daemon, which runs on the head beside its database."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=head
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""


def gres_conf(nodes: Sequence[str], devices: Sequence[Path]) -> str:
    """gres.conf: the same device files are the GPUs of every node."""
    return "".join(f"NodeName={node} Name=gpu AutoDetect=off File={device}\n" for node in nodes for device in devices)


CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
"""  # the plugin "disabled" came with Slurm 23.02; slurmd needs the file all the same
