"""The documents are true: links lead somewhere; files, commands and flags that they name exist."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

import click
import pytest

from serve_app.cli.main import moss

ROOT = Path(__file__).parents[1]
DOCS = [*ROOT.glob("README*.md"), *sorted((ROOT / "docs").glob("*.md"))]
STRUCTURE = ROOT / "docs" / "structure.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?<![\w./-])moss ([a-z-].*)")
WORD = re.compile(r"[a-z][a-z-]*")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
FILE = re.compile(r"[\w./-]+\.(?:py|md|toml|yaml|txt)")


@pytest.fixture(params=DOCS, ids=lambda path: path.name)
def doc(request: pytest.FixtureRequest) -> str:
    text: str = request.param.read_text("utf-8")
    return text


def code(text: str) -> Iterator[str]:
    """Lines of fenced code and the code in running text."""
    for language, block in FENCE.findall(text):
        if language in ("sh", "console"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).lower().replace(" ", "-") for heading in headings}


@cache
def house_files() -> tuple[str, ...]:
    """Paths of all files and folders of the repository, with a slash in front."""
    tops = [path for path in ROOT.iterdir() if not path.name.startswith(".")]
    inner = (path for top in tops for path in top.rglob("*") if "__pycache__" not in path.parts)
    return tuple(f"/{path.relative_to(ROOT).as_posix()}" for path in [*tops, *inner])


def subcommand(words: tuple[str, ...]) -> click.Command:
    """The command of `moss` that `words` begin with. Raises LookupError if there is none."""
    command: click.Command = moss
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            raise LookupError(f"moss {' '.join(words)}")
        command = found
    return command


def flags_of(command: click.Command) -> set[str]:
    own = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    return own | {"--help"}


def tree(command: click.Command) -> Iterator[click.Command]:
    """The command and all of its subcommands."""
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) is not None:
                yield from tree(child)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_commands_exist_and_have_the_flags_that_are_shown(doc: str) -> None:
    for line in code(doc):
        for command in COMMAND.findall(line.partition("#")[0]):
            words = tuple(takewhile(WORD.fullmatch, command.split()))
            assert set(FLAG.findall(command)) <= flags_of(subcommand(words)), line


def test_flags_exist(doc: str) -> None:
    known = set().union(*map(flags_of, tree(moss)))
    used = {flag for line in code(doc) if line.startswith("--") for flag in FLAG.findall(line)}
    assert used <= known


def test_make_targets_exist(doc: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    used = {name for line in code(doc) for name in re.findall(r"^(?:\w+=\S+ )*make ([a-z]+)", line)}
    assert used <= targets


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    if path == STRUCTURE:  # its table also says where new files will go
        text = text.partition("## Where a change goes")[0]
    files = house_files()
    missing = [
        name
        for name in code(text)
        if FILE.fullmatch(name) and not any(known.endswith(f"/{name}") for known in files)
    ]
    assert missing == []


def test_the_tree_of_the_house_shows_every_room() -> None:
    (tree,) = (block for language, block in FENCE.findall(STRUCTURE.read_text("utf-8")))
    named = set(re.findall(r"(?:^ *|[ ·])(\w+)/", tree, re.MULTILINE))
    folders = {path.name for path in ROOT.glob("[a-z]*_*/*/") if (path / "__init__.py").exists()}
    plugins = {path.parent.name for path in ROOT.glob("plugins_svc/*/spec.py")}  # "a folder each"
    assert not folders - plugins - named


def test_the_tree_shows_no_room_that_is_gone() -> None:
    (tree,) = (block for language, block in FENCE.findall(STRUCTURE.read_text("utf-8")))
    for name in re.findall(r"(?:^ *|[ ·])(\w+)/", tree, re.MULTILINE):
        assert any(known.endswith(f"/{name}") for known in house_files()), name
