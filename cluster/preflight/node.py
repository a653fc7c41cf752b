"""What runs once on every node: looks at all that the run needs there, and says so line by line."""

import os
import sys
import time
from pathlib import Path

from cluster.preflight import node_checks
from cluster.preflight.neighbours import AGAIN_SECONDS, Neighbours, network_findings
from cluster.preflight.reports import DONE, Finding, Speaker
from cluster.preflight.task import NodeTask

SEEN_SECONDS = 30.0
"""For so long network file systems may not show what another node has written."""
LINGER_SECONDS = 25.0
"""For so long a node that is ready waits for the visits of the others."""


def main() -> None:
    """`python -m cluster.preflight.node TASK`, under srun."""
    task = NodeTask.from_json(sys.argv[1])
    name = os.environ["SLURMD_NODENAME"]
    speaker = Speaker(name, int(os.environ["SLURM_NODEID"]))
    speaker.begins("network")
    try:
        neighbours = Neighbours(name, task.addresses, task.port)
    except OSError as error:
        mend = "end what listens there, perhaps a rank left over from another run"
        speaker.found(Finding("network", "no port", f"port {task.port} cannot be listened on: {error}", mend))
        return
    _look_alone(task, speaker)
    _look_at_others(task, speaker, neighbours)
    speaker.begins(DONE)
    neighbours.wait_for_visitors(LINGER_SECONDS)
    neighbours.close()


def _look_alone(task: NodeTask, speaker: Speaker) -> None:
    speaker.begins("output")
    output = node_checks.output(task.token_file, task.token, speaker.node)
    speaker.found(output)
    speaker.begins("versions")
    for finding in node_checks.versions():
        speaker.found(finding)
    if output.problem:
        return  # the recipe lies there
    speaker.begins("recipe")
    recipe, run = task.recipe(), Path(task.run)
    speaker.found(node_checks.cores(task.cores))
    ranks = task.ranks_per_node * len(task.addresses)
    speaker.found(node_checks.shared_memory(recipe, task.ranks_per_node, ranks))
    speaker.begins("free space")
    speaker.found(node_checks.free_space(run, recipe))
    speaker.begins("shards")
    speaker.found(node_checks.shards(recipe))
    speaker.begins("start")
    if start := node_checks.starting_point(run, recipe):
        speaker.found(start)


def _look_at_others(task: NodeTask, speaker: Speaker, neighbours: Neighbours) -> None:
    speaker.begins("network")
    visits = neighbours.visit_all()
    for finding in network_findings(visits, task.port):
        speaker.found(finding)
    reached = [name for name, visit in visits.items() if not visit.problem]
    if speaker.node == task.first or task.first in reached:
        ahead = 0.0 if speaker.node == task.first else -visits[task.first].clock_ahead_seconds
        speaker.found(Finding("clock", f"{ahead:+.3f} s", value=ahead))
    speaker.begins("output of others")
    for name in _unseen(Path(task.folder), task.token, reached):
        mend = "mount the output's file system on the node, or give an output that all nodes share"
        problem = f"does not see what {name} has written into {task.folder}"
        speaker.found(Finding("output of others", "unseen", problem, mend, other=name))


def _unseen(folder: Path, token: str, names: list[str]) -> list[str]:
    """Nodes whose file is not seen; waits for what may come late."""
    deadline, unseen = time.monotonic() + SEEN_SECONDS, list(names)
    while unseen:
        unseen = [name for name in unseen if not _shows(folder, name, token)]
        if not unseen or time.monotonic() > deadline:
            break
        time.sleep(AGAIN_SECONDS)
    return unseen


def _shows(folder: Path, name: str, token: str) -> bool:
    try:
        os.listdir(folder)  # has network file systems look again
        return (folder / name).read_text() == token
    except OSError:
        return False


if __name__ == "__main__":
    main()
