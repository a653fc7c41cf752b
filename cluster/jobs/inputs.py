"""What a job reads must be there when it is submitted: on a cluster, all nodes see the same paths."""

from collections.abc import Mapping
from pathlib import Path

from rrcm_dist.errors import InvalidInput


def check_paths(paths: Mapping[str, str | None]) -> None:
    """Raise `InvalidInput` naming every key of a recipe whose path does not exist; None stands for no path."""
    missing = [f"{key} {path}" for key, path in paths.items() if path is not None and not Path(path).exists()]
    if missing:
        raise InvalidInput(f"{' and '.join(missing)} cannot be found from {Path.cwd()}: mend the recipe, or make it")
