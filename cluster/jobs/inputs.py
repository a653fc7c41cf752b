"""What a job reads must be there when it is submitted: on a cluster, all nodes see the same paths."""

from collections.abc import Mapping
from pathlib import Path

from rrcm_dist.errors import InvalidInput
from rrcm_dist.storage.store import is_url


def check_paths(paths: Mapping[str, str | None]) -> None:
    """Raise `InvalidInput` naming every key of a recipe whose path does not exist; None stands for no path.

    URLs are not looked at: the nodes may reach what this machine does not.
    """
    given = {key: path for key, path in paths.items() if path is not None and not is_url(path)}
    missing = [f"{key} {path}" for key, path in given.items() if not Path(path).exists()]
    if missing:
        raise InvalidInput(f"{' and '.join(missing)} cannot be found from {Path.cwd()}: mend the recipe, or make it")
