"""A certification: one driver, and workers that come and go."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.jobs.inputs import check_paths
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.config.yaml_text import write_yaml
from rrcm_dist.errors import RRCMError


@dataclass(frozen=True)
class CertifyJob:
    """One sweep over the noise levels and images of a recipe, into one ledger."""

    recipe: str
    """As given: a file, or the name of one of the project's recipes."""
    overrides: tuple[str, ...]
    resolved: CertifyConfig
    kind: Literal["certify"] = "certify"

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.resolved.name

    @property
    def folder(self) -> Path:
        """Folder of the ledger and the logs."""
        return Path(self.resolved.output)

    def recipe_text(self) -> str:
        """The resolved recipe, without radii where none were named: those that are must be within reach."""
        unnamed = {"radii"} - self.resolved.model_fields_set
        return write_yaml(self.resolved.model_dump(mode="json", exclude=unnamed))

    def command(self, device: str, recipe: Path | None = None) -> list[str]:
        """What the driver executes; where its workers are, an `--address` added to it says."""
        named = [self.recipe, *self.overrides] if recipe is None else [str(recipe)]
        return [sys.executable, "-m", "rrcm_dist.cli.main", "certify", *named, "--device", device]

    def check(self) -> None:
        """Raise `InvalidInput` for radii that the recipe's draws cannot reach."""
        from rrcm_dist.certification.plan import check_reach

        check_reach(self.resolved)

    def check_inputs(self, waits: bool) -> None:
        """Raise `InvalidInput` for shards and checkpoints that are not there."""
        checkpoints = {f"classifiers.{i}.checkpoint": c.checkpoint for i, c in enumerate(self.resolved.classifiers)}
        check_paths({"data": self.resolved.data, **({} if waits else checkpoints)})

    def is_finished(self) -> bool:
        """Whether nothing of the recipe is left to draw.

        Of a ledger that is done with another n, other noise levels, another number of images or, in mode adaptive,
        without a radius that is asked for now, that is not known: it counts as unfinished, and starting again tells.
        """
        from rrcm_dist.certification.status import read_status
        from rrcm_dist.config.estimate import certified_images

        try:
            status = read_status(self.folder)
        except RRCMError:  # there is none yet
            return False
        recipe, levels = self.resolved, {level["sigma"]: level for level in status.levels}
        wanted = {classifier.sigma for classifier in recipe.classifiers}
        if not status.done or status.n != recipe.n or not wanted <= levels.keys():
            return False
        images = certified_images(recipe, self._samples())
        radii = set(recipe.radii) if recipe.mode == "adaptive" else set()
        return all(images in (None, levels[s]["images"]) and radii <= set(levels[s]["radii"]) for s in wanted)

    def _samples(self) -> int | None:
        """Of the dataset; None where its shards are not seen from here."""
        from rrcm_dist.data.index import load_index

        with suppress(RRCMError, OSError):
            return len(load_index(self.resolved.data))
        return None
