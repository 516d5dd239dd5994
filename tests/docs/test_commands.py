"""The commands that pages show exist, with the options that they are given."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main

from llm_common.cli.app import app
from llm_common.settings import READERS, environment_variable
from pages import ROOT, code, english, read

pytestmark = pytest.mark.once

PAGES = [*(ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")), *english()]
EXTRAS = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
ASSIGNMENT = re.compile(r"([A-Z][A-Z_]*)=\S*")
VARIABLES = {
    *map(environment_variable, READERS),
    "PROMETHEUS_MULTIPROC_DIR",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
}
NOT_OURS = {".", "cd", "mkdir", "docker", "twine", "(umask", "gunicorn"}
"""Programs of others; what a page does with them is followed by tests elsewhere, or can't be, as with a publication."""


def lines() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for block in code(page):
            if block.lstrip().startswith("```console"):
                joined = re.sub(r"\\\n\s*", "", block)  # a command may go on in the next line
                yield from ((page, line.strip()) for line in joined.splitlines()[1:-1])
        if page.name == "CONTRIBUTING.md":
            yield from ((page, line) for line in re.findall(r"`((?:make|bash) [^`]+)`", read(page)))


@pytest.mark.parametrize(("page", "line"), [pytest.param(*one, id=f"{one[0].name}-{one[1]}") for one in lines()])
def test_a_command_exists_and_takes_its_options(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    while assigned := ASSIGNMENT.fullmatch(words[0]):
        assert assigned[1] in VARIABLES
        del words[0]
    if "llm-common" in words:
        parse(words[words.index("llm-common") + 1 :])
        return
    match words:
        case ["pip", "install", *what]:
            for one in what:
                assert can_be_installed(one)
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", read(ROOT / "Makefile"), re.MULTILINE)
        case ["bash", script]:
            assert (ROOT / script).is_file()
        case ["python" | "python3", "-m", module, *_]:
            assert find_spec(module)
        case ["python", file]:
            assert f"\n# {file}\n" in read(page)
        case ["pytest", "-p", plugin]:
            assert find_spec(plugin)
        case ["pytest"]:
            assert re.search(r"^# test_\w+\.py$", read(page), re.MULTILINE)
        case [program, *_]:
            assert program in NOT_OURS


def parse(words: list[str]) -> None:
    """Read a command line as the program does, and run nothing; raise for what it doesn't know."""
    command: Any = typer.main.get_command(app)
    name = "llm-common"
    while hasattr(command, "commands") and not words[0].startswith("-"):
        name, *words = words
        command = command.commands[name]
    with suppress(typer.Exit):  # of options such as --version, which end the program at once
        command.make_context(name, words)


def can_be_installed(what: str) -> bool:
    """Return whether this is a distribution of the repository, with extras that it has, or one that is pinned."""
    place, _, extras = what.rstrip("]").partition("[")
    if place in {".", "/path/to/the/clone"} or place.startswith("./"):
        known = EXTRAS if not place.startswith("./") else {}
        return (ROOT / place if place.startswith(".") else ROOT).is_dir() and set(filter(None, [extras])) <= set(known)
    return f"\n{place}==" in read(ROOT / "requirements" / "dev.txt")


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["lint", "--no-such-option"])
