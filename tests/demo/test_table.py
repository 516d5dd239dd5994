import io
import math

import pytest
from rich.console import Console

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures
from llm_common.demo.screen import picture
from llm_common.demo.summary import print_summary
from llm_common.demo.table import ASCII_BARS, BARS, Sparkline, duration

NAMES = ("answer_llm_call", "menu_handler", "order_callback_handler", "question_handler", "reindex_task")


def console(width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    return Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False, _environ={})


def printed(screen: Console) -> list[str]:
    screen.file.flush()
    assert isinstance(screen.file, io.TextIOWrapper)
    buffer = screen.file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode().splitlines()


def busy_day() -> list[ActionFigures]:
    found = []
    for name in NAMES:
        action = ActionFigures(name, 0)
        action.counts.update({Status.OK: 12_345, Status.ERROR: 1_234, Status.CANCELLED: 321})
        action.per_second.update({second: second % 9 for second in range(300)})
        action.finished(Status.OK, 12.3)
        action.sized(123_456)
        action.update()
        found.append(action)
    return found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 us"), (0.00085, "850 us"), (0.0009996, "1 ms"), (0.012, "12 ms"), (0.9996, "1.00 s"), (75, "75.00 s")],
)
def test_a_duration_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_duration_that_is_none_is_a_dash() -> None:
    assert duration(math.nan) == "-"


@pytest.mark.parametrize(("encoding", "bars"), [("utf-8", BARS), ("ascii", ASCII_BARS)])
def test_a_sparkline_has_one_bar_for_each_second(encoding: str, bars: str) -> None:
    screen = console(encoding=encoding)
    screen.print(Sparkline({0: 8, 1: 4, 3: 1, 4: 99}, 4))
    assert printed(screen) == [bars[8] + bars[4] + bars[0] + bars[1]]


def test_a_sparkline_shows_the_latest_seconds_where_there_is_no_room_for_all() -> None:
    screen = console(width=3)
    screen.print(Sparkline({0: 9, 7: 1, 8: 2, 9: 4}, 10))
    assert printed(screen) == [BARS[2] + BARS[4] + BARS[8]]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_live_picture_fits_the_screen_without_cutting_anything(width: int, encoding: str) -> None:
    screen = console(width, encoding)
    screen.print(picture(busy_day(), 299.9, 300, width))
    lines = printed(screen)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "299.9 of 300 s" in text
    for part in (*NAMES, "action", "ok", "error", "cancelled", "error %", "p50", "p95", "each sec", "12.30 s"):
        assert part in text
    assert "…" not in text


@pytest.mark.parametrize("width", [1, 10, 40])
def test_a_narrow_screen_that_knows_ascii_alone_crops_the_picture(width: int) -> None:
    screen = console(width, "ascii")
    screen.print(picture(busy_day(), 299.9, 300, width))
    assert max(map(len, printed(screen))) <= width


def test_a_summary_for_a_narrow_screen_keeps_its_first_line_whole() -> None:
    screen = console(20, "ascii")
    print_summary(screen, busy_day(), 299.9)
    assert printed(screen)[1] == "69505 actions in 299.9 s: 61730 ok, 6170 error, 1605 cancelled"


def test_the_picture_of_the_first_moment_is_whole_too() -> None:
    screen = console()
    screen.print(picture([], 0, 30, 80))
    assert "0.0 of 30 s" in "\n".join(printed(screen))


def test_the_summary_counts_by_status_and_adds_up_sizes() -> None:
    screen = console()
    silent = ActionFigures("menu_handler", 0)
    sized = ActionFigures("reindex_task", 0)
    for action, status in ((silent, Status.OK), (silent, Status.CANCELLED), (sized, Status.ERROR)):
        action.finished(status, 0.25)
    sized.sized(4096)
    for action in (silent, sized):
        action.update()
    print_summary(screen, [silent, sized], 12.34)
    lines = printed(screen)
    assert lines[1] == "3 actions in 12.3 s: 1 ok, 1 error, 1 cancelled"
    assert [line.split() for line in lines[-2:]] == [
        ["menu_handler", "1", "0", "1", "0.0", "250", "ms", "250", "ms", "-"],
        ["reindex_task", "0", "1", "0", "100.0", "250", "ms", "250", "ms", "4096"],
    ]
