"""Additions to pre-training by the name of their section; the step of pre-training knows none of them."""

import importlib

from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.training.additions.addition import Addition

CLASSES = {
    "hard_negatives": "hard_negatives:HardNegativesAddition",
    "batch_balance": "batch_balance:BatchBalanceAddition",
    "representation_warmup": "representation_warmup:RepresentationWarmup",
}
"""Section of `additions` → module and class in this folder."""


def additions_of(recipe: PretrainConfig) -> list[type[Addition]]:
    """The classes of the sections that the recipe gives, in the order of the types."""
    given = [name for name, section in recipe.additions if section is not None]
    return [_class(*CLASSES[name].split(":")) for name in given]


def _class(module: str, name: str) -> type[Addition]:
    found: type[Addition] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return found
