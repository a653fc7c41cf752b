"""From a recipe's file and `key=value` overrides to its frozen type, and back. All problems are told at once."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from pydantic import ValidationError

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.keys import MODELS, AnyRecipe, nearest_keys
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PaperConfig, PretrainConfig
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.config.yaml_text import read_yaml, write_yaml
from rrcm_dist.errors import InvalidInput

RECIPES = Path(__file__).resolve().parents[2] / "configs"
"""The recipes that come with the project, beside the packages in a checkout and in an installation alike."""


@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["pretrain"]) -> PretrainConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["finetune"]) -> FinetuneConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["train-ibp"]) -> IbpConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["certify"]) -> CertifyConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["verify"]) -> VerifyConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["demo"]) -> DemoConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, kind: Literal["paper"]) -> PaperConfig: ...
@overload
def load_recipe(path: str | Path, overrides: Sequence[str] = (), kind: str | None = None) -> AnyRecipe: ...
def load_recipe(path: str | Path, overrides: Sequence[str] = (), kind: str | None = None) -> AnyRecipe:
    """Read a recipe.

    path: a YAML file, or the name of one of the project's recipes (`imagenet/pretrain-b`).
    overrides: `dotted.key=value`, the value as YAML; a number in the key is a position in a list.
    kind: the kind the caller can run; None takes any.
    Raises `InvalidInput` naming every unknown key (with the nearest valid ones) and every impossible value.
    """
    file = find_recipe(path)
    values = read_yaml(_text_of(file), str(file))
    if not isinstance(values, dict):
        raise InvalidInput(f"{file} is not a recipe: it must hold `key: value` lines, beginning with `kind:`")
    checked = _checked_kind(values, kind, str(file))
    for override in overrides:
        _apply(values, override)
    return _validated(values, checked, str(file))


def dump_recipe(recipe: AnyRecipe) -> str:
    """The whole recipe, defaults included, as YAML that `load_recipe` reads back to an equal one."""
    return write_yaml(recipe.model_dump(mode="json"))


def find_recipe(path: str | Path) -> Path:
    """The file that `path` names: itself, a run folder's, or one of the project's; `.yaml` may be left out."""
    given = Path(path)
    candidates = [folder / name for folder in (Path(), RECIPES) for name in (given, Path(f"{given}.yaml"))]
    for candidate in (*candidates, given / "recipe.yaml"):
        if candidate.is_file():
            return candidate
    if given.is_dir() and given.resolve() != RECIPES:
        raise InvalidInput(f"{path} is a folder without a recipe.yaml: give a YAML file or a run folder")
    names = recipe_names()
    wanted = str(given.with_suffix("") if given.suffix in (".yaml", ".yml") else given)
    near = difflib.get_close_matches(wanted.split("configs/")[-1], names, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(names) or 'none'}"
    raise InvalidInput(f"there is no recipe {path}, neither as a file nor in {RECIPES}: {hint}")


def recipe_names() -> list[str]:
    """Names of the project's recipes; what is under cluster/ and monitoring/ describes no runs."""
    names = [str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.yaml")]
    return sorted(name for name in names if not name.startswith(("cluster/", "monitoring/")))


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from None


def _checked_kind(values: dict[str, Any], wanted: str | None, where: str) -> str:
    given = values.get("kind")
    if given not in MODELS:
        told = f"its kind is {given!r}" if "kind" in values else "it has no `kind:`"
        raise InvalidInput(f"{where}: {told}; it must be one of {', '.join(MODELS)}")
    if wanted is not None and given != wanted:
        if given == "demo":
            raise InvalidInput(
                f"{where} is a demo recipe, not a {wanted} one: its parts run by `rrcm demo`, and on a "
                "cluster by `python -m cluster submit paper digits-paper`"
            )
        run = f"python -m cluster submit paper {where}" if given == "paper" else f"rrcm {given} {where}"
        raise InvalidInput(f"{where} is a {given} recipe, not a {wanted} one: run it by `{run}`")
    return given


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in the nested `values`; unknown keys are left for the validation to name."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise InvalidInput(f"the override {override!r} is not of the form key=value, as in training.batch=64")
    place: Any = values
    for depth, name in enumerate(names):
        at = _position(place, name, ".".join(names[:depth]), key)
        if depth == len(names) - 1:
            place[at] = read_yaml(text, f"the value of the override {override!r}")
        else:
            if isinstance(place, dict) and place.get(at) is None:
                place[at] = {}
            place = place[at]


def _position(place: Any, name: str, path: str, key: str) -> str | int:
    """Where `name` is in `place`: a key of a section or an index of a list."""
    if isinstance(place, list):
        if name.isdigit() and int(name) < len(place):
            return int(name)
        raise InvalidInput(f"{key}: {path} is a list of {len(place)}, so {name} must be 0 to {len(place) - 1}")
    if not isinstance(place, dict):
        raise InvalidInput(f"{key}: {path} is {place!r} in this recipe, so nothing can be below it")
    if name.isdigit():
        raise InvalidInput(f"{key}: this recipe leaves {path} at its default: give the whole list, {path}=[…]")
    return name


def _validated(values: dict[str, Any], kind: str, where: str) -> AnyRecipe:
    # Strictly, so that `true` is no number and "64" no count; by way of JSON, whose lists may stand for tuples.
    try:
        return MODELS[kind].model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems = [told for one in error.errors(include_url=False) for told in _problems(dict(one), kind)]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise InvalidInput("\n".join([f"{where} has {count}:", *(f"  {problem}" for problem in problems)]))


def _problems(error: dict[str, Any], kind: str) -> list[str]:
    """One of pydantic's errors in our words; an unknown section gives one for each key in it."""
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return [_unknown(key, kind) for key in _leaves(path, error["input"])]
    if error["type"] == "missing":
        return [f"{path}: missing, must be given"]
    if error["type"] == "value_error":
        return [f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])]
    told = error["msg"].replace("Input should be", "must be").replace("a valid string", "text")
    return [f"{path}: {told} (given {json.dumps(error['input'], ensure_ascii=False, default=str)})"]


def _unknown(path: str, kind: str) -> str:
    near = nearest_keys(path, kind)
    return f"{path}: unknown key" + (f"; did you mean {' or '.join(near)}?" if near else f" of a {kind} recipe")


def _leaves(path: str, value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [leaf for name, below in value.items() for leaf in _leaves(f"{path}.{name}", below)]
    return [path]
