"""A certification: one driver, and workers that come and go."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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

    def is_finished(self) -> bool:
        """Whether nothing of the recipe is left to draw.

        A ledger does not say which draws a recipe still wants beyond it: one that is done with another n, other images
        or noise levels counts as unfinished.
        """
        from rrcm_dist.certification.status import read_status

        try:
            status = read_status(self.folder)
        except RRCMError:  # there is none yet
            return False
        wanted = {classifier.sigma for classifier in self.resolved.classifiers}
        return status.done and status.n == self.resolved.n and wanted <= {level["sigma"] for level in status.levels}
