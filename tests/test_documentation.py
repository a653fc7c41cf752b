"""What the documents say can be done: links lead somewhere, commands parse, recipes and their keys are there."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from cluster.__main__ import build_app as build_cluster
from rrcm_dist.cli.main import COMMANDS
from rrcm_dist.cli.main import build_app as build_rrcm
from rrcm_dist.config.load import load_recipe
from shards.__main__ import build_app as build_shards

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
DOORS = {"rrcm": build_rrcm, "shards": build_shards, "cluster": build_cluster}
RECIPE_KINDS = {"pretrain", "finetune", "certify", "train-ibp", "verify", "demo"}
PLACEHOLDERS = {"RECIPE", "…"}
COMMAND = re.compile(r"(?:rrcm|python -m|torchrun|make)(?:\s|$)")


@dataclass(frozen=True)
class Told:
    """A command as a document tells it."""

    document: str
    line: str
    whole: bool
    """Whether it stands in a block, to be copied; a command named in a sentence may lack what it needs."""

    def __str__(self) -> str:
        return f"{self.document}: {self.line}"


def told_commands() -> list[Told]:
    told = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```.*?$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        blocks += re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
        lines = [(line, True) for block in blocks for line in block.splitlines()] + [(line, False) for line in inline]
        for line, whole in lines:
            for part in re.sub(r"\s#.*", "", line).split(" && "):
                if COMMAND.match(part.strip()):
                    told.append(Told(str(document.relative_to(ROOT)), " ".join(part.split()), whole))
    return told


TOLD = told_commands()


def words_of(told: Told) -> list[str]:
    return [word for word in shlex.split(told.line) if word not in ("…", "...")]


def door_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """The door a command goes through and what it is given; None for other programs."""
    if "rrcm_dist.cli.main" in words:
        return "rrcm", words[words.index("rrcm_dist.cli.main") + 1 :]
    if words[0] == "rrcm":
        return "rrcm", words[1:]
    if words[:2] == ["python", "-m"] and words[2] in DOORS:
        return words[2], words[3:]
    return None


THROUGH_DOORS = [told for told in TOLD if door_and_arguments(words_of(told))]
OTHERS = [told for told in TOLD if not door_and_arguments(words_of(told))]


def test_there_are_commands_in_the_documents():
    assert {told.document for told in THROUGH_DOORS} >= {"README.md", "docs/training.md", "docs/shards.md"}
    assert {door_and_arguments(words_of(told))[0] for told in THROUGH_DOORS} == set(DOORS)


@pytest.mark.parametrize("told", THROUGH_DOORS, ids=str)
def test_a_command_and_its_options_are_there_and_its_recipe_is_valid(told):
    door, arguments = door_and_arguments(words_of(told))
    command = get_command(DOORS[door]())
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"{door} has no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if "--help" in arguments or hasattr(command, "commands"):
        assert arguments in ([], ["--help"])
        return
    try:
        values = command.make_context(command.name, list(arguments)).params
    except Exception as error:  # of click's, wherever this version of typer keeps it
        if type(error).__name__ != "MissingParameter" or told.whole:
            raise
        return
    kind = values["kind"].value if command.name == "submit" else command.name
    if kind in RECIPE_KINDS and "recipe" in values and values["recipe"] not in {*PLACEHOLDERS, None}:
        load_recipe(values["recipe"], values["overrides"] or (), kind=kind)


@pytest.mark.parametrize("told", OTHERS, ids=str)
def test_other_programs_are_asked_for_what_is_there(told):
    words = words_of(told)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / words[2].replace(".", "/")).exists() or (ROOT / f"{words[2].replace('.', '/')}.py").exists()
        if words[2] == "benchmarks" and len(words) > 3 and words[3] != "NAME":
            source = (ROOT / "benchmarks" / f"{words[3]}.py").read_text()
            for option in (word for word in words if word.startswith("--") and word != "--record"):
                assert f'"{option}"' in source, f"{words[3]} has no option {option}"
    else:
        pytest.fail("a program that is not ours")


def test_every_command_is_told_of():
    named = {
        arguments[0] for told in THROUGH_DOORS for _, arguments in [door_and_arguments(words_of(told))] if arguments
    }
    assert named >= set(COMMANDS)


def headings(document: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


LINKS = [
    (document, target)
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md"]
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    if not target.startswith(("http://", "https://", "mailto:"))
]


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_somewhere_within_the_project(document, target):
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    assert file.exists()
    assert file.is_relative_to(ROOT)
    assert not anchor or anchor in headings(file)


def test_the_readme_leads_to_every_document():
    linked = {(ROOT / target).resolve() for document, target in LINKS if document.name == "README.md"}
    assert {ROOT / "docs" / file.name for file in (ROOT / "docs").glob("*.md")} <= linked


def test_the_table_of_folders_names_every_package():
    table = dict(re.findall(r"^\| \[(\w+)/\]\((\w+)\) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert all(name == target and (ROOT / name).is_dir() for name, target in table.items())
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages <= table.keys()
