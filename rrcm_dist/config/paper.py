"""From a paper's recipe to those of its stages, each completed with where it reads and writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from rrcm_dist.config.load import find_recipe, load_recipe
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PaperConfig, PretrainConfig, StageConfig
from rrcm_dist.errors import InvalidInput

Recipe = TypeVar("Recipe", PretrainConfig, FinetuneConfig, CertifyConfig)


@dataclass(frozen=True)
class PaperRecipes:
    """The stages' own recipes."""

    pretrain: PretrainConfig
    finetune: tuple[FinetuneConfig, ...]
    """One a σ."""
    certify: CertifyConfig


def paper_recipes(paper: PaperConfig) -> PaperRecipes:
    """The stages' recipes, with the paper's folders.

    Raises `InvalidInput` naming the stage whose recipe cannot be, and where two fine-tunings have the same σ.
    """
    output = Path(paper.output)
    shards = {"data.train": paper.train, "data.held_out": paper.held_out}
    pretrain = _recipe(paper.pretrain, "pretrain", PretrainConfig, {**shards, "output": str(output / "pretrain")})
    tuned = []
    for number, stage in enumerate(paper.finetune):
        sigma = _recipe(stage, f"finetune.{number}", FinetuneConfig, {}).sigma
        there = {"output": str(output / f"sigma_{sigma:g}"), "start_from": pretrain.output}
        tuned.append(_recipe(stage, f"finetune.{number}", FinetuneConfig, {**shards, **there}))
    sigmas = [recipe.sigma for recipe in tuned]
    if len(set(sigmas)) < len(sigmas):
        raise InvalidInput(f"finetune has two stages at the same sigma (of {sigmas}): set another sigma in one of them")
    classifiers = [{"sigma": recipe.sigma, "checkpoint": recipe.output} for recipe in tuned]
    places: dict[str, Any] = {
        "output": str(output / "certificates"),
        "data": paper.held_out,
        "classifiers": classifiers,
    }
    return PaperRecipes(pretrain, tuple(tuned), _recipe(paper.certify, "certify", CertifyConfig, places))


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections within `set` as dotted keys, so that they leave the section's other keys as they are."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        dotted |= _dotted(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return dotted


def _recipe(stage: StageConfig, key: str, wanted: type[Recipe], places: dict[str, Any]) -> Recipe:
    kind: Literal["pretrain", "finetune", "certify"] = wanted.model_fields["kind"].default
    base = find_recipe(stage.recipe)
    overrides = [f"{name}={json.dumps(value)}" for name, value in {**_dotted(stage.set), **places}.items()]
    try:
        if isinstance(load_recipe(base), DemoConfig):
            demo = load_recipe(base, [f"{kind}.{override}" for override in overrides], kind="demo")
            recipe = getattr(demo, kind)
        else:
            recipe = load_recipe(base, overrides, kind=kind)
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error}") from None
    assert isinstance(recipe, wanted)
    return recipe
