"""Site files: the facts of a place that no recipe holds, one typed YAML file a place."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from rrcm_dist.config.load import RECIPES
from rrcm_dist.config.parts import Count, Part
from rrcm_dist.config.yaml_text import read_yaml
from rrcm_dist.errors import InvalidInput

SITES = RECIPES / "cluster"


class LocalSite(Part):
    """This machine."""

    backend: Literal["local"]
    """Which backend the file is for."""
    ranks: Count | None = None
    """Processes that train together; null: one per visible GPU, or a single one where there is none."""
    threads: Count | None = None
    """CPU threads of each rank; null shares the cores out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one; each rank has a GPU of its own."""
    stop_seconds: Annotated[float, Field(ge=0)] = 10.0
    """When one rank has ended badly, the others are killed after so long."""


Site = TypeVar("Site", bound=Part)


def load_site(kind: type[Site], path: str | Path, given: Mapping[str, Any]) -> Site:
    """Read a site file of this kind; values in `given` (from the command line) go before the file's.

    Raises `InvalidInput` naming every unknown key and every impossible value.
    """
    file = Path(path)
    if not file.is_file():
        there = ", ".join(str(f) for f in sorted(SITES.glob("*.yaml"))) or "none"
        raise InvalidInput(f"there is no site file {path}; the project has {there}")
    values = read_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(values, dict):
        raise InvalidInput(f"{file} is not a site file: it must hold `key: value` lines, beginning with `backend:`")
    try:
        return kind.model_validate({**values, **given}, strict=True)
    except ValidationError as error:
        problems = [_problem(dict(one), kind) for one in error.errors(include_url=False)]
    raise InvalidInput("\n  ".join([f"{file}, with what was given on the command line, cannot be:", *problems]))


def _problem(error: dict[str, Any], kind: type[Part]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, kind.model_fields, n=1)
        return f"{key}: unknown key; " + (
            f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
        )
    if error["type"] == "missing":
        return f"{key}: missing, must be given"
    return f"{key}: {error['msg'].replace('Input should be', 'must be')} (given {error['input']!r})"
