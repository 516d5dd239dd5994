import io
import math

import pytest
from rich.console import Console

from llm_common.contract import HttpSeries, Status
from llm_common.demo.recorder import ActionFigures, HttpFigures
from llm_common.demo.screen import picture
from llm_common.demo.summary import print_summary
from llm_common.demo.table import ASCII_BARS, BARS, Sparkline, byte_count, duration

NAMES = ("answer_llm_call", "menu_handler", "order_callback_handler", "question_handler", "reindex_task")

ROUTES = (
    ("app_api", "GET", "answers/stream"),
    ("app_api", "GET", "articles/{number}"),
    ("app_api", "POST", "questions"),
    ("llm", "POST", "v1/chat/completions"),
)


def console(width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    return Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False, _environ={})


def printed(screen: Console) -> list[str]:
    screen.file.flush()
    assert isinstance(screen.file, io.TextIOWrapper)
    buffer = screen.file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode().splitlines()


def busy_actions() -> list[ActionFigures]:
    found = []
    for name in NAMES:
        action = ActionFigures(name, 0)
        action.counts.update({Status.OK: 12_345, Status.ERROR: 1_234, Status.CANCELLED: 321})
        action.per_second.update({0: 13_899})
        action.finished(Status.OK, 12.3)
        action.sized(123_456)
        action.update()
        found.append(action)
    return found


def busy_exchanges() -> list[HttpFigures]:
    found = []
    for app_type, method, resource in ROUTES:
        for status, count in (("200", 12_344), ("404", 1_234), ("503", 1_234), ("cancelled", 321)):
            one = HttpFigures(HttpSeries(method, status, resource, app_type), 0)
            one.per_second.update({0: count - 1})
            one.finished(12.3, 999_400, 99_900_000)
            one.update()
            found.append(one)
    return found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (0.00085, "850 us"),
        (0.0009996, "1 ms"),
        (0.012, "12 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (75, "75.0 s"),
    ],
)
def test_a_duration_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_duration_that_is_none_is_a_dash() -> None:
    assert duration(math.nan) == "-"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "-"), (999, "999 B"), (1_000, "1 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (9_950_000, "10 MB")],
)
def test_a_number_of_bytes_is_written_in_the_unit_that_suits_it(count: int, text: str) -> None:
    assert byte_count(count) == text


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
    screen.print(picture(busy_actions(), busy_exchanges(), 299.9, 300, width))
    lines = printed(screen)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "299.9 of 300 s" in text
    for part in (*NAMES, "action", "ok", "error", "cancelled", "error %", "p50", "p95", "by second", "12.3 s"):
        assert part in text
    for part in (
        *(resource for _, _, resource in ROUTES),
        "app_api",
        "llm",
        "4xx",
        "5xx",
        "none",
        "12344",
        "1234",
        "321",
    ):
        assert part in text
    assert "…" not in text


@pytest.mark.parametrize("width", [1, 10, 40])
def test_a_narrow_screen_that_knows_ascii_alone_crops_the_picture(width: int) -> None:
    screen = console(width, "ascii")
    screen.print(picture(busy_actions(), busy_exchanges(), 299.9, 300, width))
    assert max(map(len, printed(screen))) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_the_summary_fits_the_screen_without_cutting_anything(width: int) -> None:
    screen = console(width)
    print_summary(screen, busy_actions(), busy_exchanges(), 299.9)
    lines = printed(screen)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in (
        *NAMES,
        *(resource for _, _, resource in ROUTES),
        "cancelled",
        "12344",
        "12.3 s",
        "999 kB",
        "100 MB",
    ):
        assert part in text


def test_a_summary_for_a_narrow_screen_keeps_its_first_lines_whole() -> None:
    screen = console(20, "ascii")
    print_summary(screen, busy_actions(), busy_exchanges(), 299.9)
    lines = printed(screen)
    assert lines[1] == "69500 actions in 299.9 s: 61730 ok, 6170 error, 1605 cancelled"
    assert "60532 HTTP requests: 45399 served, 15133 sent" in lines


def test_the_picture_of_the_first_moment_is_whole_too() -> None:
    screen = console()
    screen.print(picture([], [], 0, 30, 80))
    assert "0.0 of 30 s" in "\n".join(printed(screen))


def test_the_picture_has_a_line_for_each_route_with_its_statuses_in_groups() -> None:
    screen = console()
    screen.print(picture([], busy_exchanges()[:4], 1, 30, 80))
    line = next(line for line in printed(screen) if "answers" in line)
    assert line.split()[:7] == ["app_api", "GET", "answers/stream", "12344", "1234", "1234", "321"]


def test_the_summary_counts_by_status_and_adds_up_sizes() -> None:
    screen = console()
    silent = ActionFigures("menu_handler", 0)
    sized = ActionFigures("reindex_task", 0)
    for action, status in ((silent, Status.OK), (silent, Status.CANCELLED), (sized, Status.ERROR)):
        action.finished(status, 0.25)
    sized.sized(4096)
    served = HttpFigures(HttpSeries("GET", "404", "orders/{number}", "app_api"), 0)
    sent = HttpFigures(HttpSeries("POST", "timeout", "v1/chat/completions", "llm"), 0)
    for exchange in (served, served, sent):
        exchange.finished(0.25, 600, 0)
    for one in (silent, sized, served, sent):
        one.update()
    print_summary(screen, [silent, sized], [served, sent], 12.34)
    lines = [line.split() for line in printed(screen)]
    assert " ".join(lines[1]) == "3 actions in 12.3 s: 1 ok, 1 error, 1 cancelled"
    assert lines[5:7] == [
        ["menu_handler", "1", "0", "1", "0.0", "250", "ms", "250", "ms", "-"],
        ["reindex_task", "0", "1", "0", "100.0", "250", "ms", "250", "ms", "4096"],
    ]
    assert " ".join(lines[-6]) == "3 HTTP requests: 2 served, 1 sent"
    assert lines[-2:] == [
        ["app_api", "GET", "orders/{number}", "404", "2", "250", "ms", "250", "ms", "1", "kB", "-"],
        ["llm", "POST", "v1/chat/completions", "timeout", "1", "250", "ms", "250", "ms", "600", "B", "-"],
    ]
