"""The pictures of the documentation are those that the command draws."""

import runpy

import pytest

from pages import ROOT, english, read

pytestmark = pytest.mark.once

DRAWN: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "pictures.py"))["pictures"]()


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_what_the_command_draws(name: str) -> None:
    assert read(ROOT / "docs" / name) == DRAWN[name]


def test_every_picture_is_shown_and_there_is_no_other() -> None:
    assert {path.name for path in ROOT.glob("docs/*.svg")} == set(DRAWN)
    text = "".join(map(read, english()))
    assert all(f"]({name})" in text for name in DRAWN if not name.endswith(".ru.svg"))
