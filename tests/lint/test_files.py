"""Which files are checked: those that are named, and those in folders that are named."""

import os
import socket
from pathlib import Path

import pytest

from llm_common.errors import ConfigurationError
from llm_common.lint.config import Config
from llm_common.lint.files import File, find
from llm_common.lint.run import lint
from llm_common.reporting.findings import shown


def write(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("x = 1\n")


def found(*paths: str) -> list[str]:
    return [file.shown for file in find(paths, lambda path: False)]


def test_a_folder_is_searched_in_alphabetical_order() -> None:
    write("shop/b.py", "shop/a/z.py", "shop/a.py", "shop/notes.txt", "shop/c.pyi", "shop/c/d/e.py")
    assert found("shop") == ["shop/a.py", "shop/b.py", "shop/a/z.py", "shop/c/d/e.py"]


def test_what_is_generated_hidden_or_installed_is_left_out() -> None:
    write("a.py", ".b.py", ".hidden/c.py", "__pycache__/d.py", "node_modules/e.py", "build/f.py", "dist/g.py")
    write("venv/lib/h.py", "venv/pyvenv.cfg", "x/build/i.py")
    assert found(".") == ["a.py"]


def test_a_file_that_is_named_is_always_read() -> None:
    write(".b.py", "build/f.py", "script")
    assert found(".b.py", "build/f.py", "script") == [".b.py", "build/f.py", "script"]
    assert found("build") == ["build/f.py"]


def test_each_file_is_found_once() -> None:
    write("shop/a.py")
    Path("link.py").symlink_to("shop/a.py")
    assert found("shop", "shop/a.py", "./shop", "link.py") == ["shop/a.py"]


def test_symbolic_links_to_folders_are_not_followed_unless_they_are_named() -> None:
    write("shop/a.py")
    Path("shop/loop").symlink_to("..")
    Path("other").symlink_to("shop")
    assert found(".") == ["shop/a.py"]
    assert found("other") == ["other/a.py"]


def test_a_link_in_a_circle_or_to_nowhere_is_a_finding() -> None:
    Path("circle.py").symlink_to("circle.py")
    Path("nowhere.py").symlink_to("missing.py")
    findings = lint(find(["."], lambda path: False), Config())
    assert [(one.path, one.code, one.message) for one in findings] == [
        ("circle.py", "LC902", "the symbolic link leads nowhere"),
        ("nowhere.py", "LC902", "the symbolic link leads nowhere"),
    ]
    assert [one.code for one in lint(find(["nowhere.py"], lambda path: False), Config())] == ["LC902"]


def test_what_is_no_file_is_left_out() -> None:
    os.mkfifo("pipe.py")
    Path("folder.py").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.py")
        assert found(".") == []


def test_a_pipe_or_a_device_that_is_named_is_a_finding() -> None:
    os.mkfifo("pipe.py")
    Path("link.py").symlink_to("pipe.py")
    write("a.py")
    findings = lint(find(["pipe.py", "/dev/zero", "a.py"], lambda path: False), Config())
    assert [(one.path, one.code, one.message) for one in findings] == [
        ("/dev/zero", "LC902", "this is no file but a pipe, a socket or a device"),
        ("pipe.py", "LC902", "this is no file but a pipe, a socket or a device"),
    ]
    assert [one.code for one in lint(find(["link.py"], lambda path: False), Config())] == ["LC902"]


def test_a_path_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="there is no file or folder 'missing'"):
        find(["missing"], lambda path: False)


def test_a_file_or_folder_that_cannot_be_opened_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    write("shop/a.py", "secret/b.py")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if "secret" in path:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    files = find(["."], lambda path: False)
    missing = File(str(Path("gone.py").absolute()), "gone.py")
    findings = lint([*files, missing], Config())
    assert [(one.path, one.code) for one in findings] == [("gone.py", "LC902"), ("secret", "LC902")]
    assert findings[1].message == "the folder can't be read: Permission denied"
    assert findings[0].message == "the file can't be read: No such file or directory"


def test_what_is_excluded_is_not_searched() -> None:
    write("shop/a.py", "shop/old/b.py", "tests/c.py")
    config = Config(exclude=("tests", "shop/old/**"))
    assert [file.shown for file in find([".", "tests/c.py"], config.excludes)] == ["shop/a.py", "tests/c.py"]


def test_paths_are_shown_from_the_working_directory_where_they_are_in_it(tmp_path: Path) -> None:
    assert shown(str(tmp_path / "shop" / "a.py")) == "shop/a.py"
    assert shown("./a.py") == "a.py"
    assert shown("../a.py") == "../a.py"
    assert shown("/elsewhere/a.py") == "/elsewhere/a.py"
