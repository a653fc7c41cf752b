"""The tables of keys in the documentation: `python -m rrcm_dist.config.reference docs/recipes.md` writes them anew."""

import sys
from pathlib import Path

from rrcm_dist.config.keys import MODELS, Key, keys_of
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import write_text

BEGIN = "<!-- keys: written by python -m rrcm_dist.config.reference docs/recipes.md -->"
END = "<!-- end of keys -->"


def key_tables() -> str:
    """All keys of all kinds as Markdown; those of the recipes that a demo nests are not repeated."""
    parts = []
    for kind, model in MODELS.items():
        nested = tuple(f"{other}." for other in MODELS) if kind == "demo" else ()
        keys = [key for key in keys_of(kind) if not key.path.startswith(nested)]
        parts.append(f"### {kind}\n\n{' '.join((model.__doc__ or '').split())}\n\n{_table(keys)}")
    return "\n\n".join(parts)


def with_current_tables(document: str) -> str:
    """`document` with the tables between its markers written anew."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InvalidInput(f"the document lacks the lines {BEGIN!r} and {END!r}, between which the tables go")
    return f"{before}{BEGIN}\n\n{key_tables()}\n\n{END}{after}"


def _table(keys: list[Key]) -> str:
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        cells = (f"`{key.path}`", key.allowed, f"`{key.default}`" if key.default else "", key.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_text(name, with_current_tables(Path(name).read_text(encoding="utf-8")))
