"""What each event costs a run on a real Slurm, and whether it ends with the weights of the undisturbed run.

Brings up the test cluster of tests/slurm (as root; Debian's slurm-wlm, munge, slurmdbd, mariadb-server) and lets
each event happen to a tiny run of two ranks. `--record` writes the rows into docs/cluster-events.md.

    python -m benchmarks cluster_events --record
    python -m benchmarks cluster_events --record --event "a rank killed"
"""

import argparse
import os
import subprocess
import tempfile
from datetime import date
from pathlib import Path

from benchmarks.cluster_watch import Loss, Watch, test_cluster
from benchmarks.machine import commit, markdown_table, processor

from events import AT_STEP, EVENTS, Event  # isort: skip  # of tests/slurm, which cluster_watch finds
from slurm_cluster import SlurmCluster  # isort: skip
from tiny import build_digits  # isort: skip
from tiny_runs import STEPS, TinyRun, Weights, differences, undisturbed_weights  # isort: skip

TABLE = Path(__file__).parents[1] / "docs/cluster-events.md"
TEXT = """\
# What events cost a run on Slurm

Written by `python -m benchmarks cluster_events --record`; not to be edited by hand. {processor}, {cores} cores,
on which other programs may have run: `load` is how many processes wanted a core when the event's run ended.

Each event happened to a run of {steps} steps on two ranks, on a real Slurm of two nodes (tests/slurm), after step {at}.
Bit-identical: the weights it ended with, compared with those of a run that nothing happened to.

Seconds lost: the longest time after the event in which the run made no step that it had not made before, less the
time of a step. They are the sum of: until the next life begins (Slurm notices, lets processes end, starts the job
again), its start (processes, imports, set-up, loading the checkpoint), and steps done again. The two minutes for which
Slurm holds a requeued job back are left out: the test cluster skips them. Nodes are missed there after 14 to 29 s,
processes killed 5 s after SIGTERM; a cluster's own SlurmdTimeout and KillWait are longer.

{table}

A run that somebody has to submit again (`python -m cluster resubmit`) loses as long as that takes.
"""


def main() -> None:
    """Let the events happen, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [event.name for event in EVENTS]
    parser.add_argument("--event", action="append", choices=names, help="only this one (may be repeated)")
    parser.add_argument("--record", action="store_true", help="write docs/cluster-events.md")
    arguments = parser.parse_args()
    chosen = [event for event in EVENTS if not arguments.event or event.name in arguments.event]
    rows = _recorded()
    with tempfile.TemporaryDirectory() as folder, test_cluster() as slurm:
        shards = build_digits(Path(folder, "digits"))
        undisturbed = undisturbed_weights(Path(folder), shards)
        for number, event in enumerate(chosen):
            slurm.tidy()
            rows[event.name] = row(slurm, event, Path(folder, f"event-{number}"), shards, undisturbed)
            print(markdown_table([rows[event.name]]), flush=True)
            if arguments.record:
                _record([rows[name] for name in names if name in rows])


def row(slurm: SlurmCluster, event: Event, folder: Path, shards: Path, undisturbed: Weights) -> dict[str, str]:
    """The event's line of the table."""
    run = TinyRun(slurm, event.folder(folder, slurm.small_disk), shards)
    with Watch(run) as watch:
        try:
            state = suffer(run, event)
        except (AssertionError, TimeoutError, subprocess.CalledProcessError) as error:
            state = str(error).splitlines()[0]
    finished = state == "COMPLETED"
    loss = watch.loss() if finished and not event.resubmitted else None
    same = finished and not differences(run.weights(), undisturbed)
    return {
        "event": event.name,
        "Slurm": watch.slurm_words(),
        "the run": _lives(run) + ("; submitted again by hand" if event.resubmitted else ""),
        **_seconds(loss),
        "bit-identical": "yes" if same else "no" if finished else f"did not finish: {state}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "measured": f"{date.today()}, {commit()}",
    }


def suffer(run: TinyRun, event: Event) -> str:
    """Start the run, let the event happen, see to the end; the state that the last job ended in."""
    run.submit(event.nodes, partition=event.partition, overrides=event.overrides)
    run.wait_for_step(AT_STEP)
    event.strike(run)
    if event.resubmitted:
        run.wait_for_end()
        run.call("resubmit", "run")
        run.newest_job()
    return run.wait_for_end()


def _recorded() -> dict[str, dict[str, str]]:
    """Rows of the table as it stands, by event."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    columns, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")] or [[], []]
    return {cells[0]: dict(zip(columns, cells, strict=True)) for cells in rows}


def _record(rows: list[dict[str, str]]) -> None:
    table = markdown_table(rows)
    text = TEXT.format(processor=processor(), cores=os.cpu_count(), steps=STEPS, at=AT_STEP, table=table)
    TABLE.write_text(text, encoding="utf-8")


def _lives(run: TinyRun) -> str:
    words = []
    for life in run.lives():
        detail = f" ({life.detail})" if life.detail else ""
        words.append(f"step {life.start_step} to {life.end_step}: {life.cause}{detail}")
    return "; ".join(words).replace(str(run.output), "RUN")


def _seconds(loss: Loss | None) -> dict[str, str]:
    names = ("seconds lost", "until next life", "start", "again", "steps done again")
    if loss is None:
        return dict.fromkeys(names, "–")
    seconds = (loss.seconds, loss.until_life, loss.start, loss.replay)
    return dict(zip(names, [*(f"{value:.1f}" for value in seconds), str(loss.replayed_steps)], strict=True))
