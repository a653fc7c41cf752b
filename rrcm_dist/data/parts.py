"""Parts of batches, the workers' unit of labour: what is asked for, how it is made, how parts become batches."""

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rrcm_dist.config.estimate import MOST_READY, PART
from rrcm_dist.data.ahead import MadeAhead
from rrcm_dist.data.batches import Assembly, Batch
from rrcm_dist.data.decoding import DecodeError, EncodedImage
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.reading import SampleReader
from rrcm_dist.errors import RRCMError, RunFailure

REPLACEMENTS = 16
"""Samples tried in place of one that cannot be decoded."""
PARTS_AHEAD = 4
"""Parts after the one it makes that a worker reads ahead, so that it need not wait for a disk or a store."""
PART_SECONDS = 2.0
"""How long the end of a loader waits for the part under way."""
UNREADABLE = -1
"""Sample id of a row that holds no sample; its label and key mean nothing."""

logger = logging.getLogger(__name__)
Sample = TypeVar("Sample")


class PartRequest(NamedTuple):
    """Samples of one step that a worker makes together."""

    step: int
    first_row: int
    """Row of the first sample within the global batch; the others follow it."""
    sample_ids: np.ndarray
    batch_rows: int
    """Samples of the batch that this part belongs to."""
    soon: np.ndarray = np.empty(0, dtype=np.int64)
    """Samples that the same worker will be asked for next."""


@dataclass(frozen=True)
class MadePart(Generic[Batch]):
    """What a worker made of a request."""

    batch: Batch
    failed: list[str]
    """Keys of the samples that could not be decoded, each with what was wrong."""
    batch_rows: int


class Labels(TypedDict):
    """What every batch says about its samples; see `LabelledBatch`."""

    labels: Tensor
    sample_ids: Tensor
    keys: list[str]
    rows: Tensor
    failures: int


class StepRequests:
    """The requests that make up a rank's rows of one global batch after the other."""

    def __init__(self, order: SampleOrder, rank: int, world_size: int, start_step: int, steps: int) -> None:
        """Raise `InvalidInput` where the ranks cannot share the streams."""
        self._order, self._steps = order, range(start_step, start_step + steps)
        self._rows = order.rank_rows(rank, world_size)

    @property
    def parts_per_batch(self) -> int:
        """Requests for one batch of the rank."""
        return math.ceil(len(self._rows) / PART)

    def __iter__(self) -> Iterator[PartRequest]:
        for step in self._steps:
            ids = self._order.global_batch(step)
            for first in self._rows[::PART]:
                end = min(first + PART, self._rows.stop)
                yield PartRequest(step, first, ids[first:end], len(self._rows))


def told_ahead(requests: Iterable[PartRequest], workers: int) -> Iterator[PartRequest]:
    """The requests, each with the samples of the `PARTS_AHEAD` that go to the same worker next: they take turns."""
    turn = max(1, workers)
    source, coming = iter(requests), deque[PartRequest]()
    while True:
        coming.extend(islice(source, turn * PARTS_AHEAD + 1 - len(coming)))
        if not coming:
            return
        request = coming.popleft()
        soon = [later.sample_ids for later in islice(coming, turn - 1, None, turn)]
        yield request._replace(soon=np.concatenate([request.soon, *soon]))


class PartMaker(Dataset, Generic[Batch, Sample]):
    """Makes parts on request. An error that the user can mend is returned, as raising loses its words on the way."""

    def __init__(
        self,
        index: DatasetIndex,
        view: Callable[..., Sample],
        collate: Callable[[Sequence[Sample], Labels], Batch],
        seed: int,
        replacements: int = REPLACEMENTS,
        blank: Sample | None = None,
    ) -> None:
        """`view` makes a sample of an image at (seed, step, row, attempt); `collate` makes a batch of samples.

        Where a sample and its `replacements` cannot be decoded, `blank` stands there under the sample id `UNREADABLE`;
        without it, that is an error.
        """
        self._index, self._reader = index, SampleReader(index)
        self._view, self._seed, self._replacements, self._blank = view, seed, replacements, blank
        self._collate: Callable[[Sequence[Sample], Labels], Batch] = collate

    def __getitem__(self, request: PartRequest) -> MadePart[Batch] | RRCMError:
        """The part asked for, or the error that stopped it."""
        try:
            return self._make(request)
        except RRCMError as error:
            return error

    def _make(self, request: PartRequest) -> MadePart[Batch]:
        ids: list[int] = []
        samples: list[Sample] = []
        failed: list[str] = []
        self._reader.expect([*request.sample_ids.tolist(), *request.soon.tolist()])
        for row, sample_id in enumerate(request.sample_ids.tolist(), start=request.first_row):
            used_id, sample = self._sample(request.step, row, sample_id, failed)
            ids.append(used_id)
            samples.append(sample)
        labels = Labels(
            labels=torch.from_numpy(self._index.label[ids].astype(np.int64)),
            sample_ids=torch.tensor(ids),
            keys=[str(key) for key in self._index.keys[ids]],
            rows=torch.arange(request.first_row, request.first_row + len(ids)),
            failures=len(failed),
        )
        return MadePart(self._collate(samples, labels), failed, request.batch_rows)

    def _sample(self, step: int, row: int, sample_id: int, failed: list[str]) -> tuple[int, Sample]:
        for attempt in range(self._replacements + 1):
            candidate = (sample_id + attempt) % len(self._index)
            try:
                image = EncodedImage(self._reader.read(candidate))
                return candidate, self._view(image, self._seed, step, row, attempt)
            except DecodeError as error:
                failed.append(f"{self._index.keys[candidate]} ({error})")
        if self._blank is not None:
            return UNREADABLE, self._blank
        tried = f"nor could the {self._replacements} after it" if self._replacements else "and none may stand in for it"
        raise RunFailure(
            f"sample {failed[-1 - self._replacements]} cannot be decoded, {tried}: "
            f"`python -m shards verify {self._index.place}` lists what is damaged; build those shards again"
        )


def batches(
    maker: PartMaker[Batch, Any],
    requests: Iterable[PartRequest],
    workers: int,
    parts_ready: int,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches that `requests` add up to, in order; `workers` processes together keep `parts_ready` parts ready.

    While a batch is in use, a thread puts the next one together. With 0 workers, parts are made in this process when
    they are asked for. For `pin_memory` see `Assembly`.
    """
    stopping = threading.Event()
    with _termination_held():
        loader: Any = iter(_part_loader(maker, requests, workers, parts_ready))
    assembled = _assembled(loader, pin_memory, stopping)
    ahead = MadeAhead(assembled) if workers else None
    try:
        yield from ahead or assembled
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise RunFailure(
            f"a loading process ended by itself ({error}): most often memory or /dev/shm ran out; "
            "lower data.workers or data.prefetch, or give the job more memory"
        ) from error
    finally:
        stopping.set()
        ended = ahead is None or ahead.close(PART_SECONDS)
        _end_workers(loader)
        if not ended:  # its worker is stuck: nothing else ends the wait for a part
            loader._worker_result_queue.put((None, None))


def _assembled(
    loader: Iterator[MadePart[Batch] | RRCMError], pin_memory: bool, stopping: threading.Event
) -> Iterator[Batch]:
    assembly: Assembly[Batch] | None = None
    for made in loader:
        if stopping.is_set():
            return
        if isinstance(made, RRCMError):
            raise made
        for failed in made.failed:
            logger.warning("passed over a sample that cannot be decoded: %s", failed)
        assembly = assembly or Assembly(made.batch_rows, pin_memory)
        batch = assembly.add(made.batch)
        if batch is not None:
            assembly = None
            yield batch


def _end_workers(loader: Any) -> None:
    """End them now: left to the garbage collector, they outlive an error for as long as its traceback."""
    if hasattr(loader, "_shutdown_workers"):
        with suppress(RuntimeError):  # told again of the one that ended by itself
            loader._shutdown_workers()


def _part_loader(
    maker: PartMaker[Batch, Any], requests: Iterable[PartRequest], workers: int, parts_ready: int
) -> "DataLoader[MadePart[Batch] | RRCMError]":
    settings: dict[str, Any] = {}
    if workers:
        per_worker = max(2, math.ceil(min(parts_ready, MOST_READY) / workers))
        settings = {"prefetch_factor": per_worker, "worker_init_fn": _start_worker}
    return DataLoader(
        maker,
        batch_size=None,
        sampler=told_ahead(requests, workers),
        num_workers=workers,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # its seed for workers would otherwise be drawn from the process-wide state
        **settings,
    )


@contextmanager
def _termination_held() -> Iterator[None]:
    """Hold SIGTERM back in this thread, and for good in every thread of the processes that it starts meanwhile.

    Held only once a worker has begun, threads that libraries (Ray's) begin there at the fork still took the signal.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    """Leave signals that ask a run to stop to the training process, which needs its workers for the last step.

    Schedulers send SIGTERM to every process of a job. The training process itself ends stuck workers by it, so those
    from the parent count; only a thread that waits for a signal learns where it came from.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_when_the_parent_says_so, args=(os.getppid(),), daemon=True).start()


def _end_when_the_parent_says_so(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _unchanged(part: Any) -> Any:
    return part
