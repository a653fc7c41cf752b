"""Tiny training runs on the test cluster: submitted as a user submits them, watched, compared bit by bit."""

import itertools
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from slurm_cluster import SlurmCluster
from slurm_hosts import wait_for
from tiny import finetune_recipe, pretrain_recipe, train_here
from torch import Tensor

from cluster.record.history import Cause, History, Life
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig

STEPS, CHECKPOINT_EVERY, SECONDS = 120, 25, 120
SITE = """
backend: slurm
nodes: {nodes}
ranks_per_node: {ranks_per_node}
gpus_per_node: 0
cpus_per_rank: 1
time_limit: 10
partition: {partition}
seconds_before_limit: 30
preflight: false
device: cpu
"""

Weights = dict[tuple[int, str], Tensor]


@dataclass
class TinyRun:
    """A run of two ranks in `folder`/run, to be submitted from `folder`."""

    slurm: SlurmCluster
    folder: Path
    shards: Path
    kind: str = "pretrain"
    job: int = 0
    """Number of the job that was submitted last."""
    happened: float = field(default=0.0, init=False)
    """When the event came of which the run is to recover, in seconds since 1970."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_recipe(self.folder, self.shards, self.kind)

    @property
    def output(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def submit(
        self, nodes: int = 1, ranks_per_node: int = 0, partition: str = "main", overrides: Sequence[str] = ()
    ) -> int:
        """Number of the job; as many ranks a node as make two where it is not said."""
        self.write_site(nodes, ranks_per_node or 2 // nodes, partition)
        self.call("submit", self.kind, "recipe.yaml", *overrides, "--site", "site.yaml")
        return self.newest_job()

    def write_site(self, nodes: int = 1, ranks_per_node: int = 2, partition: str = "main") -> None:
        """`site.yaml`."""
        text = SITE.format(nodes=nodes, ranks_per_node=ranks_per_node, partition=partition)
        (self.folder / "site.yaml").write_text(text)

    def submissions(self) -> list[dict[str, Any]]:
        """As the run folder tells them."""
        return History(self.output).jobs()

    def newest_job(self) -> int:
        """Number of the job that was submitted last, which becomes `job`."""
        self.job = int(self.submissions()[-1]["job"])
        return self.job

    def try_to(self, *command: str) -> subprocess.CompletedProcess[str]:
        """`python -m cluster COMMAND` on the login node, which may fail."""
        return self.slurm.try_to_launch(self.folder, *command)

    def call(self, *command: str) -> str:
        """What such a command says."""
        return self.slurm.launch(self.folder, *command)

    def wait_for_step(self, step: int) -> None:
        """Return when the run has logged this step, in whichever life."""
        wait_for(lambda: self.last_step() >= step, SECONDS, f"step {step}, {self.tails()}")

    def wait_for_end(self) -> str:
        """State in which the job ended."""
        return self.slurm.wait_for_end(self.job, SECONDS)

    def last_step(self) -> int:
        """The last step that metrics.jsonl tells of."""
        file = self.output / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def event(self) -> None:
        """Remember that what is to happen to the run happens now."""
        self.happened = time.time()

    def lives(self) -> list[Life]:
        """As the run folder tells them."""
        return History(self.output).lives()

    def causes(self) -> list[Cause | None]:
        """Why each life ended."""
        return [life.cause for life in self.lives()]

    def weights(self) -> Weights:
        """Tensors of the finished run, by network and name."""
        return finished_weights(self.output, self.tails())

    def tails(self) -> str:
        """The ends of all logs, Slurm's too."""
        logs = sorted(self.output.glob("logs/*/*.log")) + sorted(self.output.glob("cluster/*/*.out"))
        return "\n".join([*(f"{log}: {log.read_text()[-1500:]}" for log in logs), self.slurm.log_tails(20)])

    def rank_process(self, rank: int) -> int:
        """Number, as this machine counts, of the process of a rank."""
        found = self._processes("cluster.slurm.rank", f"SLURM_PROCID={rank}")
        assert found, f"rank {rank} does not run: {self.tails()}"
        return found[0]

    def ranks(self) -> list[int]:
        """Numbers of the processes of both ranks; empty while not both run."""
        found = [self._processes("cluster.slurm.rank", f"SLURM_PROCID={rank}")[:1] for rank in (0, 1)]
        return [process for processes in found for process in processes] if all(found) else []

    def supervisor_process(self) -> int:
        """Number of the process of the batch step."""
        return self._processes("submitit.core._submit")[0]

    def _processes(self, word: str, *variables: str) -> list[int]:
        """Those of the job that have the word in their command, and these variables."""
        wanted, found = {*variables, f"SLURM_JOB_ID={self.job}"}, []
        for process in itertools.chain(*self.slurm.processes().values()):
            try:
                words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
                environment = Path(f"/proc/{process}/environ").read_text().split("\0")
            except OSError:
                continue
            if word in words and "srun" not in words[0] and wanted <= {*environment}:
                found.append(process)
        return found


def write_recipe(folder: Path, shards: Path, kind: str) -> None:
    """`folder`/recipe.yaml of a run in `folder`/run; a pre-training's k-NN only at its end."""
    (folder / "recipe.yaml").write_text(dump_recipe(_recipe(shards, folder / "run", kind)))


def _recipe(shards: Path, output: Path, kind: str) -> PretrainConfig | FinetuneConfig:
    training = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY, "log_every": 1, "keep_checkpoints": 2}
    if kind == "finetune":
        return finetune_recipe(shards, output, **training)
    recipe = pretrain_recipe(shards, output, **training)
    return recipe.model_copy(update={"knn": recipe.knn.model_copy(update={"every": STEPS})})


def undisturbed_weights(folder: Path, shards: Path, kind: str = "pretrain") -> Weights:
    """Weights of two ranks on this machine, without Slurm."""
    write_recipe(folder, shards, kind)
    train_here(folder / "recipe.yaml", kind)
    return finished_weights(folder / "run")


def finished_weights(run: Path, told: str = "") -> Weights:
    """Tensors by network and name of a run folder's last checkpoint, that of a finished run; else fail as `told`."""
    checkpoint = sorted((run / "checkpoints").glob("step-*"))[-1]
    assert json.loads((checkpoint / "manifest.json").read_text())["progress"]["finished"], told
    files = sorted(checkpoint.glob("*.safetensors"))
    return {(place, name): value for place, file in enumerate(files) for name, value in load_file(file).items()}


def differences(found: Weights, undisturbed: Weights) -> dict[tuple[int, str], float]:
    """Greatest difference of each tensor that differs in any bit."""
    assert found.keys() == undisturbed.keys()
    return {
        name: (value - found[name]).abs().max().item()
        for name, value in undisturbed.items()
        if not value.equal(found[name])
    }
