"""Every key a kind of recipe may have, read off the types: for suggestions and for the documentation."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.schema import CertifyConfig, DemoConfig, FinetuneConfig, PaperConfig, PretrainConfig
from rrcm_dist.config.verify import VerifyConfig
from rrcm_dist.errors import InvalidInput

TrainingRecipe = PretrainConfig | FinetuneConfig | IbpConfig
"""What trains a network in a run folder, with checkpoints."""
AnyRecipe = TrainingRecipe | CertifyConfig | VerifyConfig | DemoConfig | PaperConfig

TRAINED: dict[str, type[TrainingRecipe]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "train-ibp": IbpConfig,
}
"""Kind of recipe that trains → its type."""

MODELS: dict[str, type[AnyRecipe]] = {
    **TRAINED,
    "certify": CertifyConfig,
    "verify": VerifyConfig,
    "demo": DemoConfig,
    "paper": PaperConfig,
}
"""Kind of recipe → its type."""

ITEM = "N"
"""Stands in a dotted key for the position in a list."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe."""

    path: str
    """Dotted, `N` for a position in a list."""
    allowed: str
    """What may stand there, in words; empty for a section."""
    default: str
    """As YAML would show it; 'required' where there is none; empty for a section."""
    meaning: str


@cache
def keys_of(kind: str) -> tuple[Key, ...]:
    """All keys of a kind of recipe, sections included, in the order of the types."""
    schema = MODELS[kind].model_json_schema()
    return tuple(_walk(schema, schema.get("$defs", {}), ""))


def require_keys(paths: Sequence[str], kind: str) -> None:
    """Raise `InvalidInput` unless each path is a key of `kind`, or a section, naming the nearest ones."""
    known = {key.path for key in keys_of(kind)}
    for path in paths:
        if path not in known:
            near = nearest_keys(path, kind)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise InvalidInput(f"there is no key {path} in a {kind} recipe{hint}")


def nearest_keys(path: str, kind: str, most: int = 3) -> list[str]:
    """The keys of `kind` that look most like `path`, nearest first, the less nested before its equals; none where
    nothing does."""
    number = re.compile(r"(?<=\.)\d+(?=\.|$)")
    asked, numbers = number.sub(ITEM, path), number.findall(path)
    likeness = ((_likeness(asked, key.path), key.path) for key in keys_of(kind))
    scored = sorted(likeness, key=lambda pair: (-pair[0], pair[1].count(".")))
    near = [key for score, key in scored[:most] if score >= max(0.55, scored[0][0] - 0.15)]
    return [re.sub(rf"(?<=\.){ITEM}(?=\.|$)", numbers[0] if numbers else "0", key) for key in near]


def _likeness(asked: str, key: str) -> float:
    """1 for the same key, less the more they differ; the last name counts most: people forget the section."""
    (asked_section, _, asked_name), (key_section, _, key_name) = asked.rpartition("."), key.rpartition(".")
    name = difflib.SequenceMatcher(None, asked_name, key_name).ratio()
    section = difflib.SequenceMatcher(None, asked_section, key_section).ratio() if asked_section or key_section else 1
    return 0.8 * name + 0.2 * section


def _walk(node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[Key]:
    keys = []
    for name, field in node["properties"].items():
        path = f"{prefix}{name}"
        section, item = _section(field, definitions)
        meaning = " ".join((field.get("description") or (section or {}).get("description", "")).split())
        if section is None:
            default = _shown(field["default"]) if "default" in field else "required"
            keys.append(Key(path, _allowed(field), default, meaning))
        else:
            keys.append(Key(path, "", "", meaning))
            keys += _walk(section, definitions, f"{path}.{ITEM}." if item else f"{path}.")
    return keys


def _section(field: dict[str, Any], definitions: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """The nested type of a field, and whether the field is a list of it; None for a plain value."""
    if "anyOf" in field:  # a section that may be null
        field = next((choice for choice in field["anyOf"] if "$ref" in choice), field)
    reference = field.get("$ref")
    if reference is None and "items" in field:
        reference, item = field["items"].get("$ref"), True
    else:
        item = False
    return (definitions[reference.rsplit("/", 1)[1]], item) if reference else (None, False)


def _allowed(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_allowed(choice) for choice in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        if "prefixItems" in field:
            return f"{len(field['prefixItems'])} × {_allowed(field['prefixItems'][0])}"
        return f"list of {_allowed(field['items'])}"
    if field.get("type") == "object":
        return "values by key"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_bound(field[name])}" for name, sign in signs.items() if name in field]
    return " ".join([words[field["type"]], ", ".join(bounds)]).strip()


def _bound(value: float) -> str:
    return "2⁶³" if value == 2**63 else f"{value:g}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
