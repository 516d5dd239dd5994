"""The files of dead processes are folded into one, and no sum ever changes by that."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from llm_common.backends import folding
from llm_common.backends.folding import (
    FILE_SIZE,
    JOURNAL,
    LOCK,
    FoldingCollector,
    begin_file,
    fold_dead,
    is_dead,
    reserve,
)
from llm_common.testing.conformance.interruption import interrupted_everywhere
from scraping import action_totals

NOBODY = (1 << 22) + 1
"""A number that no process has: Linux gives none past 2²²."""

COUNT = "shop_orders_total"
KEYS = {
    "counter": mmap_key("shop_orders", COUNT, ["app"], ["shop"], "help"),
    "histogram": mmap_key("shop_seconds", "shop_seconds_bucket", ["le"], ["+Inf"], "help"),
    "gauge_livesum": mmap_key("shop_doing", "shop_doing", [], [], "help"),
}


def write(path: Path, kind: str, value: float = 1) -> None:
    write_into(f"{path}.new", kind, value)
    os.replace(f"{path}.new", path)


def write_into(path: str, kind: str, value: float) -> None:
    file = MmapedDict(path)  # type: ignore[no-untyped-call]
    file.write_value(KEYS[kind], value, 0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def dead_processes(directory: Path, number: int, first: int = 0) -> None:
    for one in range(first, first + number):
        for kind in KEYS:
            write(directory / f"{kind}_llm_common_{NOBODY}_{one:x}.db", kind)


def sums(directory: Path) -> dict[str, float]:
    families = FoldingCollector(None, str(directory)).collect()
    return {sample.name: sample.value for family in families for sample in family.samples}


def all_of(number: int) -> dict[str, float]:
    return {COUNT: number, "shop_seconds_bucket": number, "shop_seconds_count": number}


def counting(directory: Path) -> list[str]:
    return folding.counting(str(directory), set(os.listdir(directory)))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != LOCK)


def test_the_files_of_the_dead_become_one_of_each_kind_and_their_gauges_go(tmp_path: Path) -> None:
    for round_ in range(3):
        dead_processes(tmp_path, 5, 5 * round_)
        assert sums(tmp_path) == all_of(5 * round_ + 5)
        shown = [name for name in names(tmp_path) if name != JOURNAL]
        assert [folding.FOLD.fullmatch(name)[1] for name in shown] == ["counter", "histogram"]  # type: ignore[index]
        assert json.loads((tmp_path / JOURNAL).read_text()) == {}


@pytest.mark.once
def test_a_scrape_with_5000_dead_costs_no_more_than_one_with_5(tmp_path: Path) -> None:
    seconds = {}
    for number in (5, 5000):
        directory = tmp_path / str(number)
        directory.mkdir()
        dead_processes(directory, number)
        times = []
        for _ in range(20):
            began = perf_counter()
            assert sums(directory)[COUNT] == number
            times.append(perf_counter() - began)
        seconds[number] = min(times)
        print(
            f"\n{number} dead: folding takes {times[0] * 1e3:.1f} ms, a scrape after it {seconds[number] * 1e3:.2f} ms"
        )
        assert len(counting(directory)) == 2
    # The file system still reads a directory that was as long; on the scrape that is well below a millisecond.
    assert seconds[5000] < seconds[5] + 0.005


def test_what_is_no_file_with_values_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dead_processes(tmp_path, 1)
    path, lock = begin_file(str(tmp_path), "counter")
    write_into(path, "counter", 1)
    os.mkfifo(tmp_path / f"counter_llm_common_{NOBODY}_1.db")  # whoever opens it waits for a writer, forever
    os.symlink("nowhere", tmp_path / f"counter_llm_common_{NOBODY}_2.db")
    os.symlink(path, tmp_path / "counter_1.db")
    (tmp_path / "counter_llm_common.db").mkdir()
    (tmp_path / f"counter_{NOBODY}.db").touch()
    for _ in range(2):
        assert sums(tmp_path)[COUNT] == 2
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 4
    assert all("is passed over: it is no file with values" in one for one in told)
    os.close(lock)


def test_what_is_not_surely_dead_or_not_ours_is_left_alone(tmp_path: Path) -> None:
    dead_processes(tmp_path, 1)
    path, lock = begin_file(str(tmp_path), "counter")
    write_into(path, "counter", 1)
    elsewhere = path.replace(f"_{os.getpid()}_", f"_{NOBODY}_")  # as it looks from another container
    os.rename(path, elsewhere)
    kept = [
        Path(elsewhere),
        tmp_path / f"counter_llm_common_{os.getpid()}_0.db",  # it may have closed its descriptors to become a daemon
        tmp_path / f"counter_{NOBODY}.db",  # of prometheus_client itself
        tmp_path / f"counter_llm_common_{NOBODY}_0_unlocked.db",
    ]
    for file in kept[1:]:
        write(file, "counter")
    assert sums(tmp_path)[COUNT] == 5
    assert all(file.exists() for file in kept)
    assert len(names(tmp_path)) == 7
    os.close(lock)
    assert sums(tmp_path)[COUNT] == 5
    assert [file.exists() for file in kept] == [False, True, True, True]


def test_a_process_of_another_user_and_a_file_that_cannot_be_opened_are_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_dead(str(tmp_path / "missing"), NOBODY)

    def refused(number: int, signal: int) -> None:
        raise PermissionError

    (tmp_path / "file").touch()
    assert is_dead(str(tmp_path / "file"), NOBODY)
    monkeypatch.setattr("os.kill", refused)
    assert not is_dead(str(tmp_path / "file"), NOBODY)


def test_where_files_cannot_be_locked_they_are_never_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("fcntl.flock", refused)
    path, lock = begin_file(str(tmp_path), "counter")
    os.close(lock)
    assert path.endswith("_unlocked.db")
    assert os.path.exists(path)
    dead_processes(tmp_path, 2)
    assert sums(tmp_path)[COUNT] == 2
    assert len(names(tmp_path)) == 7


def test_a_directory_that_cannot_be_written_is_read_without_folding(tmp_path: Path) -> None:
    dead_processes(tmp_path, 2)
    (tmp_path / LOCK).mkdir()  # as good as a file that can't be opened
    assert sums(tmp_path)[COUNT] == 2
    assert len(names(tmp_path)) == 6


def test_a_disk_that_is_full_stops_no_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    dead_processes(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(folding, "write_journal", full)
        assert sums(tmp_path)[COUNT] == 2
    assert sums(tmp_path) == all_of(2)
    assert len(names(tmp_path)) == 3


def test_files_that_cannot_be_removed_count_once_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise PermissionError

    for kind in ("counter", "histogram"):
        write(tmp_path / f"{kind}_llm_common_{NOBODY}_0.db", kind)
    with monkeypatch.context() as patch:
        patch.setattr("os.remove", refused)
        for number in (1, 2, 3):
            assert sums(tmp_path)[COUNT] == number
            assert sums(tmp_path)[COUNT] == number
            for kind in ("counter", "histogram"):
                write(tmp_path / f"{kind}_llm_common_{NOBODY}_{number}.db", kind)
        assert sums(tmp_path) == all_of(4)
    assert sums(tmp_path) == all_of(4)
    assert len(names(tmp_path)) == 3


def test_what_somebody_else_may_not_remove_counts_once_although_folds_are_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = os.remove

    def owned_by_another(path: str) -> None:
        if Path(path).name.endswith("_0.db"):
            raise PermissionError
        remove(path)

    monkeypatch.setattr("os.remove", owned_by_another)
    for number in range(1, 5):
        write(tmp_path / f"counter_llm_common_{NOBODY}_{number - 1}.db", "counter")
        for _ in range(2):
            assert sums(tmp_path)[COUNT] == number


@pytest.mark.parametrize("content", [b"", b'{"counter', b"[]", b"\xff"])
def test_a_damaged_journal_is_replaced(tmp_path: Path, content: bytes) -> None:
    dead_processes(tmp_path, 2)
    (tmp_path / JOURNAL).write_bytes(content)
    assert sums(tmp_path) == all_of(2)
    assert json.loads((tmp_path / JOURNAL).read_text()) == {}


def test_a_disk_without_space_for_a_fold_is_noticed_before_anything_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    dead_processes(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        assert sums(tmp_path)[COUNT] == 2
    assert sums(tmp_path) == all_of(2)


def test_a_fold_has_space_for_everything_that_is_in_it(tmp_path: Path) -> None:
    for size in (1, FILE_SIZE, 3 * FILE_SIZE):
        reserve(str(tmp_path / "fold"), size)
        assert size < (tmp_path / "fold").stat().st_size < 2 * size + 2 * FILE_SIZE
        assert (tmp_path / "fold").stat().st_blocks * 512 >= size


def test_a_number_that_no_process_can_have_stops_no_scrape(tmp_path: Path) -> None:
    write(tmp_path / f"counter_llm_common_{10**30}_0.db", "counter")
    assert sums(tmp_path)[COUNT] == 1


def test_a_file_that_cannot_be_made_takes_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no such thing")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refused)
        with pytest.raises(OSError, match="no such thing"):
            begin_file(str(tmp_path), "counter")
    assert len(os.listdir("/proc/self/fd")) == before


def test_killed_at_any_moment_of_the_folding_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    directory, copy = tmp_path / "metrics", tmp_path / "copy"
    directory.mkdir()
    dead_processes(directory, 2)
    fold_dead(str(directory), set(os.listdir(directory)))
    dead_processes(directory, 2, 2)
    seen = set()

    def state() -> object:
        return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(directory.iterdir()))

    def killed() -> None:
        """Look at what would be there if the process were killed now, before anybody folds and after."""
        if (now := state()) in seen:
            return
        seen.add(now)
        shutil.copytree(directory, copy)
        assert sum(values(copy / name)[KEYS["counter"]] for name in counting(copy) if "counter" in name) == 4
        for _ in range(2):
            assert sums(copy) == all_of(4)
        assert [name for name in names(copy) if name.endswith(".new") and name != f"{JOURNAL}.new"] == []
        assert len(counting(copy)) == 2
        shutil.rmtree(copy)

    assert interrupted_everywhere(lambda: fold_dead(str(directory), set(os.listdir(directory))), killed) > 100
    assert len(seen) > 10
    assert sums(directory) == all_of(4)


def values(path: Path) -> dict[str, float]:
    read = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return {key: value for key, value, _, _ in read}


def test_a_scrape_that_interrupts_one_of_the_same_thread_only_reads(tmp_path: Path) -> None:
    dead_processes(tmp_path, 2)
    with folding.alone(str(tmp_path)) as outer:
        assert outer
        assert sums(tmp_path)[COUNT] == 2
        assert len(names(tmp_path)) == 6
    assert sums(tmp_path) == all_of(2)


HOLDER = """
import sys
from llm_common.backends.folding import alone
with alone(sys.argv[1]) as is_alone:
    print(is_alone, flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(code: str, *arguments: str, **options: str) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process that has said a line; it ends with its input."""
    command = [sys.executable, "-c", code, *arguments]
    environ = {**os.environ, **options}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as one:
        try:
            yield one
        finally:
            one.kill()


def said(one: subprocess.Popen[str]) -> str:
    assert one.stdout is not None
    return one.stdout.readline().strip()


def test_a_scrape_waits_for_one_of_another_process_but_not_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with process(HOLDER, str(tmp_path)) as holder:
        assert said(holder) == "True"
        with monkeypatch.context() as patch:
            patch.setattr(folding, "PATIENCE", 0.01)
            with pytest.raises(TimeoutError, match=r"another process has had '.*llm_common\.lock' locked for 0\.01 s"):
                sums(tmp_path)
        holder.kill()
        dead_processes(tmp_path, 1)
        assert sums(tmp_path) == all_of(1)


def test_a_scrape_waits_for_one_of_another_thread_but_not_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = Event(), Event()

    def scrape() -> None:
        with folding.alone(str(tmp_path)):
            begun.set()
            go_on.wait(60)

    thread = Thread(target=scrape)
    thread.start()
    assert begun.wait(60)
    with monkeypatch.context() as patch:
        patch.setattr(folding, "PATIENCE", 0.01)
        with pytest.raises(TimeoutError, match=r"another thread has been scraping '.*' for 0\.01 s"):
            sums(tmp_path)
    go_on.set()
    thread.join()
    assert sums(tmp_path) == {}


PARENT = """
import os, sys
from llm_common.backends.folding import alone
from llm_common.prometheus import action_tracking, configure
configure(app="shop", strict=True)
with action_tracking("order_handler"): pass
with alone(os.environ["PROMETHEUS_MULTIPROC_DIR"]):
    child = os.fork()
    if not child:
        with action_tracking("order_handler"): pass
        print("counted", flush=True)
    sys.stdin.read()
"""


def test_a_parent_is_known_to_be_dead_although_its_child_lives_and_was_forked_during_a_scrape(tmp_path: Path) -> None:
    with process(PARENT, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as parent:
        assert said(parent) == "counted"
        assert len(names(tmp_path)) == 4
        parent.kill()
        parent.wait()
        assert action_totals(tmp_path, "shop") == {("order_handler", "ok"): 2}
        shown = [folding.OWNED.fullmatch(name) for name in names(tmp_path)]
        assert {found[2] for found in shown if found} != {str(parent.pid)}
        assert len([found for found in shown if found]) == 2
        assert action_totals(tmp_path, "shop") == {("order_handler", "ok"): 2}


SCRAPER = """
import sys
from llm_common.backends.folding import FoldingCollector
before = 0
while True:
    families = FoldingCollector(None, sys.argv[1]).collect()
    now = [sample.value for one in families for sample in one.samples if sample.name.endswith("_total")]
    assert len(now) <= 1 and sum(now) >= before, f"{now} after {before}"
    if sum(now) != before:
        before = sum(now)
        print(before, flush=True)
"""


@pytest.mark.e2e
def test_scrapers_that_fold_all_the_time_and_are_killed_see_no_counter_go_down(tmp_path: Path) -> None:
    kills = int(os.environ.get("KILLS", "5"))
    total = 0
    for _ in range(kills):
        with process(SCRAPER, str(tmp_path)) as one, process(SCRAPER, str(tmp_path)) as two:
            for _ in range(5):
                dead_processes(tmp_path, 20, total)
                total += 20
            while float(said(one)) < total - 50:
                pass
            one.send_signal(signal.SIGKILL)
            dead_processes(tmp_path, 20, total)
            total += 20
            while float(said(two)) < total:
                pass
    assert sums(tmp_path) == all_of(total)
    assert len(names(tmp_path)) == 3
