"""A second place for checkpoints, a folder or a URL: each is copied there, and a run that has none goes on from it.

A checkpoint's manifest is copied last: what has none is not a checkpoint yet.
"""

import logging
import shutil
import time
from pathlib import Path

from rrcm_dist.config.load import dump_recipe
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput, RRCMError
from rrcm_dist.files import PARTIAL
from rrcm_dist.models.checkpoint_files import MANIFEST, damage
from rrcm_dist.storage.store import Store, open_store
from rrcm_dist.training.checkpoints import staying

log = logging.getLogger(__name__)


class Mirror:
    """The recipe's `training.checkpoints_to`, as the main rank sees it."""

    def __init__(self, place: str, recipe: PretrainConfig | FinetuneConfig) -> None:
        """Nothing is asked of the store yet. Raises `InvalidInput` for a URL of unknown kind."""
        self._recipe, self._store = recipe, open_store(place, recipe.data.store_patience)

    def open(self) -> None:
        """Put the recipe there, which shows that it can be written to; raises as a `Store` does where it cannot."""
        aside = Path(self._recipe.output) / f".recipe{PARTIAL}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(dump_recipe(self._recipe), encoding="utf-8")
        try:
            self._store.upload(aside, "recipe.yaml")
        except RRCMError as error:
            raise InvalidInput(f"training.checkpoints_to: {error}") from error
        finally:
            aside.unlink()

    def keep(self, checkpoint: Path) -> None:
        """Copy a checkpoint there and remove those that need not stay. What fails is told, and training goes on."""
        start = time.monotonic()
        try:
            files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST]
            for file in [*files, checkpoint / MANIFEST]:
                self._store.upload(file, f"{checkpoint.name}/{file.relative_to(checkpoint)}")
            there = _checkpoints(self._store)
            for old in sorted(set(there) - staying(there, checkpoint.name, self._recipe)):
                self._store.delete(f"{old}/{MANIFEST}")  # first: a half-removed one must not pass for one
                self._store.delete(old)
        except (RRCMError, OSError) as error:
            log.warning("checkpoint %s was not copied to %s: %s", checkpoint.name, self._store.place, error)
            return
        log.info("%s copied to %s in %.1f s", checkpoint.name, self._store.place, time.monotonic() - start)

    def fetch_newest(self, folder: Path) -> None:
        """Copy the newest undamaged checkpoint, if there is one, into the run's `checkpoints/`; damaged ones are told.

        Raises as a `Store` does.
        """
        place = self._store.place
        for name in sorted(_checkpoints(self._store), reverse=True):
            aside = folder / f".{name}{PARTIAL}"
            shutil.rmtree(aside, ignore_errors=True)
            for file in self._store.names(name):
                self._store.download(file, aside / Path(file).relative_to(name), show=True)
            if problem := damage(aside):
                log.warning(
                    "checkpoint %s in %s is damaged (%s); using the one before it", name, self._store.place, problem
                )
                shutil.rmtree(aside, ignore_errors=True)
                continue
            aside.rename(folder / name)
            log.info("fetched %s from %s", name, place)
            return


def _checkpoints(store: Store) -> list[str]:
    """Names of the checkpoints in a store whose copying was finished."""
    names = [Path(name) for name in store.names()]
    return [path.parts[0] for path in names if len(path.parts) == 2 and path.name == MANIFEST]
