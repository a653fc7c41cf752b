import itertools
import re
import shlex
from pathlib import Path

import pytest

from rrcm_dist.config.describe import describe
from rrcm_dist.config.keys import MODELS, keys_of, nearest_keys
from rrcm_dist.config.load import load_recipe, recipe_names
from rrcm_dist.config.reference import with_current_tables
from rrcm_dist.errors import InvalidInput

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"
COMMANDS = re.findall(r"^rrcm (?:pretrain|finetune|certify|demo) .*$", DOCUMENT.read_text(), re.MULTILINE)


def test_the_tables_of_the_guide_are_current():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert with_current_tables(written) == written, "run: python -m rrcm_dist.config.reference docs/recipes.md"


def test_a_document_without_the_markers_is_refused():
    with pytest.raises(InvalidInput, match="lacks the lines"):
        with_current_tables("# Recipes\n")


@pytest.mark.parametrize("kind", MODELS)
def test_every_key_has_a_meaning(kind):
    assert [key.path for key in keys_of(kind) if not key.meaning] == []


@pytest.mark.parametrize("kind", MODELS)
def test_a_key_is_nearest_to_itself(kind):
    assert all(nearest_keys(key.path, kind)[0] == key.path.replace(".N.", ".0.") for key in keys_of(kind))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_guide_are_valid(command):
    _, kind, name, *words = shlex.split(command)
    overrides = [word for word in words if not word.startswith("--") and "=" in word]
    options = dict(itertools.pairwise(words))
    recipe = load_recipe(name, overrides, kind=kind)
    describe(recipe, int(options.get("--gpus", 8)), options.get("--gpu", "A800"))


def test_the_guide_names_every_recipe_and_no_other():
    named = re.findall(
        r"`((?:imagenet|tinyimagenet|cifar10|mnist|digits)/[\w.-]+|demo|digits-paper)`", DOCUMENT.read_text()
    )
    assert set(named) == set(recipe_names())
