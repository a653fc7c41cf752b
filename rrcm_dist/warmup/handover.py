"""From the warm-up's last checkpoint into the network of the main run, every key accounted for."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rrcm_dist.config.warmup_costs import TeacherCost
from rrcm_dist.files import write_json
from rrcm_dist.models.rrcm import PretrainingNetwork
from rrcm_dist.models.weights import LoadReport, load_into, read_tensors
from rrcm_dist.warmup.alignment import AlignmentHead
from rrcm_dist.warmup.early_blocks import EARLY_BLOCKS

REPORT = "warmup-handover.json"
HEAD = "head."


def hand_over(checkpoint: Path, network: PretrainingNetwork) -> LoadReport:
    """Embeddings and early blocks of a warm-up's checkpoint into the network, all of them.

    Returns which of the network's tensors were loaded, which stay as initialised, and which of the warm-up's go unused.
    Raises `InvalidInput` where they are of another shape, `RunFailure` where the checkpoint is damaged.
    """
    file = checkpoint / f"{EARLY_BLOCKS}.safetensors"
    weights = read_tensors(file)
    return load_into(network, weights, str(file), required=tuple(name for name in weights if _of_encoder(name)))


def hand_over_head(checkpoint: Path, head: AlignmentHead) -> None:
    """The warm-up's head into one that goes on at the same block."""
    file = checkpoint / f"{EARLY_BLOCKS}.safetensors"
    weights = {name.removeprefix(HEAD): tensor for name, tensor in read_tensors(file).items() if not _of_encoder(name)}
    load_into(head, weights, str(file))


def write_report(folder: Path, checkpoint: Path, report: LoadReport, head: bool, teacher: TeacherCost) -> None:
    """Tell in the main run's folder what became of every key (`head`: whether the head goes on, too), and what the
    teacher cost."""
    told = {
        "from": str(checkpoint),
        "loaded": list(report.loaded),
        "left_as_initialised": list(report.missing),
        "unused": [] if head else list(report.unused),
        "into_the_head_of_the_term": list(report.unused) if head else [],
        "teacher": asdict(teacher),
    }
    write_json(folder / REPORT, told)


def reported_teacher(folder: Path) -> TeacherCost | None:
    """What the report in a main run's folder says of the teacher's cost; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return TeacherCost(**json.loads((folder / REPORT).read_text())["teacher"])
    return None


def _of_encoder(name: str) -> bool:
    return not name.startswith(HEAD)
