"""Writing into a folder again and again: what was edited stays, what was shown is what happened."""

import json
import os
import stat
from pathlib import Path

import pytest

from llm_common.monitoring.export import LIST, ExportError, State, plan, write

pytestmark = pytest.mark.once

FILES = {"rules/alerts.yml": "groups: []\n", "README.md": "hello\n"}


def states(folder: Path, files: dict[str, str]) -> dict[str, State]:
    return {change.path: change.state for change in plan(folder, files)}


def exported(folder: Path, files: dict[str, str], *, force: bool = False) -> None:
    write(folder, plan(folder, files), force=force)


def test_the_first_export_creates_everything_and_the_second_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "monitoring"
    assert set(states(folder, FILES).values()) == {State.CREATED}
    exported(folder, FILES)
    assert {path: (folder / path).read_text() for path in FILES} == FILES
    assert set(states(folder, FILES).values()) == {State.UNCHANGED}
    before = (folder / LIST).read_bytes()
    exported(folder, FILES)
    assert (folder / LIST).read_bytes() == before


def test_planning_writes_nothing(tmp_path: Path) -> None:
    plan(tmp_path / "new", FILES)
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_edited_is_updated_with_a_diff(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    changes = plan(tmp_path, {**FILES, "README.md": "hello\nagain\n"})
    (changed,) = [one for one in changes if one.state is State.UPDATED]
    assert changed.diff == "--- README.md\n+++ README.md (export)\n@@ -1 +1,2 @@\n hello\n+again\n"
    write(tmp_path, changes)
    assert (tmp_path / "README.md").read_text() == "hello\nagain\n"


def test_what_was_edited_stays_and_is_no_conflict_while_the_export_is_what_it_was(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    (tmp_path / "README.md").write_text("mine\n")
    assert states(tmp_path, FILES) == {"README.md": State.EDITED, "rules/alerts.yml": State.UNCHANGED}
    exported(tmp_path, FILES)
    exported(tmp_path, FILES)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_what_was_edited_stays_also_where_the_export_has_changed_which_is_a_conflict(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    (tmp_path / "README.md").write_text("mine\n")
    for _ in range(2):  # the first run must not make it look as if the new text had been written
        assert states(tmp_path, {**FILES, "README.md": "theirs\n"})["README.md"] is State.CONFLICT
        exported(tmp_path, {**FILES, "README.md": "theirs\n"})
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_force_overwrites_what_was_edited(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    (tmp_path / "README.md").write_text("mine\n")
    exported(tmp_path, FILES, force=True)
    assert (tmp_path / "README.md").read_text() == "hello\n"
    assert set(states(tmp_path, FILES).values()) == {State.UNCHANGED}


def test_a_file_that_was_there_before_any_export_counts_as_edited(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    assert states(tmp_path, FILES)["README.md"] is State.CONFLICT
    exported(tmp_path, FILES)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_a_file_that_somebody_removed_comes_back(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    (tmp_path / "README.md").unlink()
    exported(tmp_path, FILES)
    assert (tmp_path / "README.md").read_text() == "hello\n"


def test_line_ends_of_another_system_are_no_edit(tmp_path: Path) -> None:
    exported(tmp_path, FILES)
    (tmp_path / "README.md").write_bytes(b"hello\r\n")
    assert states(tmp_path, FILES)["README.md"] is State.UNCHANGED


def test_a_private_file_is_for_its_owner_alone_and_the_others_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write(tmp_path, plan(tmp_path, FILES), private=frozenset({"README.md"}))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "README.md").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "rules/alerts.yml").stat().st_mode) == 0o644
    for text in (FILES["README.md"], "edited\n"):
        (tmp_path / "README.md").write_text(text)
        (tmp_path / "README.md").chmod(0o644)
        write(tmp_path, plan(tmp_path, FILES), private=frozenset({"README.md"}))
        assert stat.S_IMODE((tmp_path / "README.md").stat().st_mode) == 0o600


def test_no_diff_shows_a_token_neither_the_new_nor_the_old(tmp_path: Path) -> None:
    exported(tmp_path, {"a.yml": "- bot_token: 1:old-secret\n  chat_id: 1\n"})
    (change,) = plan(tmp_path, {"a.yml": "- bot_token: 2:new-secret\n  chat_id: 2\n"})
    assert change.state is State.UPDATED
    assert "chat_id: 2" in change.diff
    assert "secret" not in change.diff


@pytest.mark.parametrize(
    "edited",
    [
        '{"bot_token": "1:secret", "chat_id": 1}',
        "'bot_token' : 1:secret",
        "bot_token:\n  1:secret",
        "bot_token: >-\n  1:secret",
        "bot_token: |2-\n  1:secret",
        "url: https://api.telegram.org/bot12345678:AAsecret-secret_secret12/getMe",
        "# 12345678:AAsecret-secret_secret12",
    ],
)
def test_no_diff_shows_a_token_that_somebody_wrote_in_another_way(edited: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{edited}\nmine\n")
    diff = plan(tmp_path, FILES)[1].diff
    assert "-mine" in diff
    assert "secret" not in diff


def test_a_token_alone_that_changed_is_written(tmp_path: Path) -> None:
    exported(tmp_path, {"a.yml": "bot_token: old\n"})
    exported(tmp_path, {"a.yml": "bot_token: new\n"})
    assert (tmp_path / "a.yml").read_text() == "bot_token: new\n"


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="is no folder"):
        plan(tmp_path / "file", FILES)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ExportError, match=r"README\.md can't be read"):
        plan(tmp_path, FILES)


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    changes = plan(tmp_path, FILES)
    (tmp_path / "rules").write_text("a file where a folder should be")
    with pytest.raises(ExportError, match="rules can't be written"):
        write(tmp_path, changes)
    (tmp_path / "README.md").unlink(missing_ok=True)
    (tmp_path / "README.md").mkdir()
    with pytest.raises(ExportError, match="can't be written"):
        write(tmp_path, [change for change in changes if change.path == "README.md"])
    assert sorted(one.name for one in tmp_path.iterdir()) == [LIST, "README.md", "rules"]


def test_what_was_written_before_something_failed_counts_as_written(tmp_path: Path) -> None:
    files = dict(reversed(FILES.items()))
    changes = plan(tmp_path, files)
    (tmp_path / "rules").write_text("a file where a folder should be")
    with pytest.raises(ExportError, match="rules can't be written"):
        write(tmp_path, changes)
    (tmp_path / "rules").unlink()
    assert states(tmp_path, {**files, "README.md": "newer\n"}) == {
        "README.md": State.UPDATED,
        "rules/alerts.yml": State.CREATED,
    }


@pytest.mark.parametrize("text", ["no json", "[]", '{"written": []}', "{}"])
def test_a_list_of_what_was_written_that_cannot_be_read_is_an_error_with_its_fix(tmp_path: Path, text: str) -> None:
    (tmp_path / LIST).write_text(text)
    with pytest.raises(ExportError, match="remove it"):
        plan(tmp_path, FILES)


def test_the_list_has_no_text_of_a_file(tmp_path: Path) -> None:
    exported(tmp_path, {"a.yml": "bot_token: secret\n"})
    assert set(json.loads((tmp_path / LIST).read_text())["written"]) == {"a.yml"}
    assert "secret" not in (tmp_path / LIST).read_text()
