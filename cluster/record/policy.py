"""Whether a life is followed by another: decided by its cause and by what came before. Nothing is done here."""

from collections.abc import Sequence

from cluster.record.history import Cause, Life

WITHOUT_LIMIT = {Cause.PREEMPTED, Cause.REQUEUED, Cause.NODE_LOST}
AS_WANTED = {Cause.DONE, Cause.CANCELLED}
"""Causes of a life that is followed by no other because nobody wants one; any other last life has failed."""

CHECKPOINT, DRAW = "the checkpoint of step", "draw"
"""What the steps of a life count, in words: of training, and of a certification."""
PREFLIGHTS_ALLOWED = 5
"""Lives of one job that end because nodes are unfit: after more, the cluster wants a person's look."""


def goes_on(
    lives: Sequence[Life], crashes_allowed: int, place: str = CHECKPOINT, may_wait: bool = False
) -> tuple[bool, str]:
    """(whether the run goes on, why not).

    A crash from which the run came no further than the crash before it is the last: the same place would crash again.
    So is the second life that reaches its time limit without a newer checkpoint: no life of that length will.

    Args:
        lives: of the run, oldest first; the last one has ended.
        crashes_allowed: in one job, after which it still goes on.
        place: what the steps of these lives count, in words.
        may_wait: whether a life may have waited for other jobs all the time: then no time limit is reached in vain.
    """
    last = lives[-1]
    if last.cause in WITHOUT_LIMIT:
        return True, ""
    of_job = [life for life in lives if life.job == last.job]
    if last.cause is Cause.TIME_LIMIT:
        ends = [life for life in of_job if life.cause is Cause.TIME_LIMIT][-2:]
        return (True, "") if may_wait else _after_time_limit(ends, place)
    if last.cause is Cause.PREFLIGHT and last.excluded:
        unfit = sum(life.cause is Cause.PREFLIGHT for life in of_job)
        if unfit <= PREFLIGHTS_ALLOWED:
            return True, ""
        return (
            False,
            f"{unfit} times in one job nodes were unfit; at most {PREFLIGHTS_ALLOWED} are set aside by themselves",
        )
    if last.cause is not Cause.CRASHED:
        return False, ""
    crashes = [life for life in of_job if life.cause is Cause.CRASHED]
    if len(crashes) > crashes_allowed:
        return False, f"it crashed {len(crashes)} times, and the site allows {crashes_allowed} (crashes_allowed)"
    if len(crashes) > 1 and crashes[-2].end_step == last.end_step:
        return False, f"it crashed twice without getting beyond {place} {last.end_step}"
    return True, ""


def _after_time_limit(ends: Sequence[Life], place: str) -> tuple[bool, str]:
    last = ends[-1]
    if len(ends) < 2 or any((life.start_step, life.end_step) != (last.end_step, last.end_step) for life in ends):
        return True, ""
    return False, (
        f"two lives reached the time limit without getting beyond {place} {last.end_step}: give it a longer time_limit"
        + (", or a shorter training.checkpoint_every" if place == CHECKPOINT else "")
    )
