"""A second place for checkpoints, a folder or a URL: each is copied there, and a run that has none goes on from it.

A checkpoint's manifest is copied last: what has none is not a checkpoint yet.
"""

import logging
import shutil
import time
from pathlib import Path

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.load import dump_recipe
from rrcm_dist.errors import InvalidInput, RRCMError
from rrcm_dist.files import PARTIAL, write_text
from rrcm_dist.models.checkpoint_files import MANIFEST, damage
from rrcm_dist.storage.failures import NotInStore
from rrcm_dist.storage.store import Store, open_store
from rrcm_dist.training.checkpointing.checkpoints import is_checkpoint, staying

log = logging.getLogger(__name__)

RECIPE = "recipe.yaml"


class Mirror:
    """The recipe's `training.checkpoints_to`, as the main rank sees it."""

    def __init__(self, place: str, recipe: TrainingRecipe) -> None:
        """Nothing is asked of the store yet. Raises `InvalidInput` for a URL of unknown kind."""
        self._recipe, self._store = recipe, open_store(place, recipe.data.store_patience)

    @property
    def place(self) -> str:
        """The folder or URL, as the recipe names it."""
        return self._store.place

    def stored_recipe(self) -> str | None:
        """The recipe (YAML) of the run whose checkpoints are there; None where there is none. Raises `InvalidInput`
        where the place cannot be read."""
        try:
            return self._store.read(RECIPE).decode("utf-8")
        except NotInStore:
            return None
        except RRCMError as error:
            raise InvalidInput(f"training.checkpoints_to: {error}") from error

    def open(self) -> None:
        """Put the recipe there, which shows that it can be written to; raises `InvalidInput` where it cannot."""
        aside = Path(self._recipe.output) / f".recipe{PARTIAL}"
        write_text(aside, dump_recipe(self._recipe))
        try:
            self._store.upload(aside, RECIPE)
        except RRCMError as error:
            raise InvalidInput(f"training.checkpoints_to: {error}") from error
        finally:
            aside.unlink()

    def holds(self, checkpoint: str | None = None) -> bool:
        """Whether a checkpoint of that name, or any, was copied there to the end; raises as a `Store` does."""
        there = _checkpoints(self._store)
        return bool(there) if checkpoint is None else checkpoint in there

    def keep(self, checkpoint: Path) -> None:
        """Copy a checkpoint there and remove those that need not stay. What fails is told, and training goes on."""
        if not checkpoint.is_dir():
            log.warning("%s was pruned before its turn to be copied to %s came", checkpoint.name, self.place)
            return
        start = time.monotonic()
        try:
            files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST]
            for file in [*files, checkpoint / MANIFEST]:
                self._store.upload(file, f"{checkpoint.name}/{file.relative_to(checkpoint)}")
            stay = staying(_checkpoints(self._store), checkpoint.name, self._recipe)
            begun = {Path(name).parts[0] for name in self._store.names()}
            for old in sorted(name for name in begun - stay if is_checkpoint(name)):
                self._store.delete(f"{old}/{MANIFEST}")  # first: a half-removed one must not pass for one
                self._store.delete(old)
        except Exception as error:  # of whatever kind
            log.warning("checkpoint %s was not copied to %s: %s", checkpoint.name, self.place, error)
            return
        log.info("%s copied to %s in %.1f s", checkpoint.name, self.place, time.monotonic() - start)

    def fetch_newest(self, folder: Path) -> None:
        """Copy the newest undamaged checkpoint, if there is one, into the run's `checkpoints/`; damaged ones are told.

        Raises as a `Store` does.
        """
        for name in sorted(_checkpoints(self._store), reverse=True):
            aside = folder / f".{name}{PARTIAL}"
            shutil.rmtree(aside, ignore_errors=True)
            for file in self._store.names(name):
                self._store.download(file, aside / Path(file).relative_to(name), show=True)
            if problem := damage(aside):
                log.warning("checkpoint %s in %s is damaged (%s); using the one before it", name, self.place, problem)
                shutil.rmtree(aside, ignore_errors=True)
                continue
            aside.rename(folder / name)
            log.info("fetched %s from %s", name, self.place)
            return


def _checkpoints(store: Store) -> list[str]:
    """Names of the checkpoints in a store whose copying was finished; what else lies there is not ours."""
    names = [Path(name) for name in store.names()]
    finished = [path.parts[0] for path in names if len(path.parts) == 2 and path.name == MANIFEST]
    return [name for name in finished if is_checkpoint(name)]
