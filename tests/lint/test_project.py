"""What one file says about another: which files are read, and which are judged."""

import gc
from pathlib import Path

import pytest

from llm_common.lint.config import Config
from llm_common.lint.files import File, find
from llm_common.lint.run import lint
from llm_common.reporting.findings import Finding

IMPORT = "from llm_common import action_tracking\n"


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def findings(*paths: str) -> list[Finding]:
    return lint(find(paths, Config().excludes), Config())


def test_a_handler_in_a_file_that_is_not_linted_is_not_judged() -> None:
    write(
        "main.py", "from telegram.ext import CommandHandler\nfrom handlers import menu\nCommandHandler('menu', menu)\n"
    )
    write("handlers.py", "async def menu(update, context): ...\n")
    assert findings("main.py") == []
    (one,) = findings(".")
    assert (one.path, one.line) == ("handlers.py", 1)
    assert one.text == (
        "nothing tracks menu, a handler of python-telegram-bot (registered at main.py:3); "
        "decorate it, or call track_handlers(application) once for all"
    )


def test_constants_are_read_from_files_that_are_not_linted() -> None:
    write("shop/names.py", "MENU = 'menu_handler'\n")
    write("shop/bot.py", IMPORT + "from shop.names import MENU\nwith action_tracking(MENU): pass\n")
    assert findings("shop/bot.py") == []


def test_files_outside_of_the_project_are_not_read() -> None:
    write("names.py", "MENU = 'menu_handler'\n")
    write("shop/bot.py", IMPORT + "from names import MENU\nwith action_tracking(MENU): pass\n")
    assert findings("shop/bot.py") == []
    write("shop/pyproject.toml", "")
    assert [one.code for one in findings("shop/bot.py")] == ["LC103"]


def test_the_modules_of_a_package_are_not_found_by_their_bare_names() -> None:
    write("shop/__init__.py", "")
    write("shop/names.py", "MENU = 'menu_handler'\n")
    write("shop/bot.py", IMPORT + "from names import MENU\nwith action_tracking(MENU): pass\n")
    assert [one.code for one in findings("shop")] == ["LC103"]
    write("names.py", "MENU = 'menu_handler'\n")
    assert findings("shop") == []


def test_the_first_use_of_a_shared_name_is_named() -> None:
    write("b.py", IMPORT + "def order():\n    with action_tracking('menu_handler'): pass\n")
    write("a.py", IMPORT + "def menu():\n    with action_tracking('menu_handler'): pass\n")
    (one,) = findings("b.py", "a.py")
    assert (one.path, one.line) == ("b.py", 3)
    assert one.message == "the name 'menu_handler' belongs to a block in menu at a.py:3 already"


def test_findings_do_not_depend_on_the_order_of_the_files() -> None:
    for name in ("a", "b", "c"):
        write(f"{name}.py", IMPORT + "with action_tracking('menu_handler'): pass\nwith action_tracking('Menu'): pass\n")
    assert findings("c.py", "a.py", "b.py") == findings("a.py", "b.py", "c.py") == findings(".")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collection_of_garbage_is_left_as_it_was(enabled: bool) -> None:
    def interrupted(path: str) -> File:
        assert not gc.isenabled()
        raise KeyboardInterrupt

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyboardInterrupt):
            lint(map(interrupted, ["a.py"]), Config())
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
