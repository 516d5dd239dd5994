"""Tracking where hardly any other code runs: finalizers, signal handlers, the end of the interpreter, and others in it.

Each is a process of its own that writes a line into a journal after each action. Afterwards the journal says what was
to be counted, and nothing may have been printed. ``STORM=20000`` lets that many signals interrupt, instead of 400.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scraping import Series, parsed, scrape_of
from servers import unmeasured

pytestmark = pytest.mark.e2e

STORM = int(os.environ.get("STORM", "400"))

PROLOGUE = """
import atexit, os, sys
from contextlib import suppress
from llm_common import action_tracking, action_tracking_decorator, configure, http_tracking, shutdown

@atexit.register  # the first to be registered is the last to be called
def show():
    from llm_common.prometheus import render_metrics
    sys.stdout.write(render_metrics()[0].decode())
    sys.stdout.flush()

JOURNAL = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def track(name, wrong=False, suppressed=suppress(ZeroDivisionError), tell=os.write, journal=JOURNAL):
    with suppressed, action_tracking(name) as tracker:
        tracker.size(1)
        if wrong:
            1 / 0
    tell(journal, f"{name} {'error' if wrong else 'ok'}\\n".encode())
"""

Totals = Counter[tuple[str, ...]]


class Run:
    """What a process left behind."""

    def __init__(self, folder: Path, shown: str) -> None:
        self.folder = folder
        self.shown = parsed(shown)
        """What it showed itself, just before its end."""
        lines = (folder / "journal").read_text().splitlines()
        self.ended: Totals = Counter(tuple(line.split()) for line in lines)
        """How often each action ended, with its status."""

    @property
    def left(self) -> dict[Series, float]:
        """What another process shows, where it wrote into files."""
        return scrape_of(self.folder / "metrics")


def counts(values: dict[Series, float]) -> Totals:
    """Return how often each action was counted, by its status."""
    return Counter(
        {
            (labels["name"], labels["status"]): int(value)
            for (metric, pairs), value in values.items()
            if metric == "genapp_action_count_total" and (labels := dict(pairs))
        }
    )


def actions(values: dict[Series, float]) -> Totals:
    """Return the same where the durations and sizes agree with it."""
    found = counts(values)
    for metric in ("genapp_action_duration_sec_count", "genapp_action_size_total"):
        others = Counter({dict(pairs)["name"]: int(value) for (one, pairs), value in values.items() if one == metric})
        assert others == by_name(found), metric
    return found


def by_name(totals: Totals) -> Counter[str]:
    names: Counter[str] = Counter()
    for (name, _), times in totals.items():
        names[name] += times
    return names


def run(folder: Path, program: str, *arguments: str, several: bool, status: int = 0) -> Run:
    """Run a program to its end, in which it prints nothing but its metrics."""
    (folder / "metrics").mkdir()
    (folder / "program.py").write_text(PROLOGUE + program)
    command = [sys.executable, "program.py", *arguments]
    environ = {**unmeasured(), "LLM_COMMON_APP": "shop"}
    if several:
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", status)
    return Run(folder, done.stdout)


@pytest.fixture(params=[False, True], ids=["one-process", "several"])
def several(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


AT_EXIT = """
import threading, weakref

class Job: ...

atexit.register(track, "first_task")  # called after what the package itself does at the exit
gone, kept = Job(), Job()
if sys.argv[1] == "used":
    track("main_task", wrong=True)
weakref.finalize(gone, track, "finalizer_task")
weakref.finalize(kept, track, "finalizer_task", wrong=True)
del gone
atexit.register(track, "last_task", wrong=True)

def outlive():
    threading.main_thread().join()
    for _ in range(1000):
        track("thread_task")

threading.Thread(target=outlive).start()

def at_exit(*_):
    track("hook_task")

sys.excepthook = threading.excepthook = sys.unraisablehook = at_exit

class Broken:
    def __del__(self):
        raise LookupError

Broken()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise LookupError
"""


@pytest.mark.parametrize("before", ["used", "unused"])
def test_hooks_finalizers_and_threads_at_the_exit_count(before: str, several: bool, tmp_path: Path) -> None:
    done = run(tmp_path, AT_EXIT, before, several=several, status=1)
    assert actions(done.shown) == done.ended
    assert done.ended["thread_task", "ok"] == 1000
    assert done.ended["hook_task", "ok"] == 3
    for ended in (("first_task", "ok"), ("last_task", "error"), ("finalizer_task", "ok"), ("finalizer_task", "error")):
        assert done.ended[ended] == 1


FIRST_USE_AT_EXIT = """
atexit.register(track, "only_task")
"""


def test_the_first_action_of_all_may_be_one_at_the_exit(several: bool, tmp_path: Path) -> None:
    done = run(tmp_path, FIRST_USE_AT_EXIT, several=several)
    assert actions(done.shown) == done.ended == {("only_task", "ok"): 1}


TEARDOWN = """
import json, types

@action_tracking_decorator("decorated_task")
def decorated(): ...

class Connection:
    def __init__(self, *names):
        self.names = names
        self.itself = self  # the cyclic collector finds it
    def __del__(self, track=track, decorated=decorated, http_tracking=http_tracking):
        for name in self.names:
            track(name)
            track(name, wrong=True)
        decorated()
        http_tracking("web", "close", "GET", 1, 200, 0.1, 1)
        track("decorated_task")

class Plain(Connection):
    def __init__(self, *names):
        self.names = names

here = Connection("close_task")
plain = Plain("close_task")
sys.modules["orders"] = types.ModuleType("orders")
sys.modules["orders"].connection = Plain("close_task", "module_task")  # which is first used there
if sys.argv[1] == "used":
    track("close_task")
if sys.argv[2] == "late":
    json.connection = Connection("close_task")  # which goes when the globals of most modules are None already
"""


def test_what_is_tracked_while_modules_are_taken_apart_counts_where_it_can_be_seen(tmp_path: Path) -> None:
    done = run(tmp_path, TEARDOWN, "used", "early", several=True)
    counted = actions({key: value for key, value in done.left.items() if ("name", "decorated_task") not in key[1]})
    told = done.ended.pop(("decorated_task", "ok"))
    assert counted == done.ended
    assert done.ended["close_task", "error"] == told == 3
    decorated = (
        "genapp_action_count_total",
        (("app", "shop"), ("env", "dev"), ("name", "decorated_task"), ("status", "ok")),
    )
    assert done.left[decorated] == 2 * told  # once by the decorator
    assert sum(value for (name, _), value in done.left.items() if name == "genapp_http_requests_total") == told


@pytest.mark.parametrize("backends", ["prometheus", "memory", "prometheus,memory", "noop"])
@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("before", ["used", "unused"])
def test_what_is_tracked_while_modules_are_taken_apart_disturbs_nobody(
    before: str, when: str, backends: str, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", backends)
    program = "atexit.unregister(show)" + TEARDOWN
    done = run(tmp_path, program, before, when, several=several)
    assert done.ended["close_task", "error"] >= (3 if when == "early" else 1)


DAEMONS = """
import json, threading
configure(extra_metrics=sys.argv[1] or None)

def work():
    while True:
        track("loop_task")

def scrape():
    from llm_common.prometheus import render_metrics
    while True:
        render_metrics()

class Connection:
    def __del__(self, track=track):
        for _ in range(1000):  # enough to make the lists be folded
            track("close_task")

for target in (work, work, work, scrape):
    threading.Thread(target=target, daemon=True).start()
json.connection = Connection()
for _ in range(200):
    track("main_task")
track("close_task")
"""


@pytest.mark.parametrize("extras", ["", "in_progress"])
@pytest.mark.parametrize("backends", ["prometheus", "prometheus,memory"])
def test_daemon_threads_that_stand_still_at_the_end_keep_nobody_waiting(
    backends: str, extras: str, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", backends)
    done = run(tmp_path, DAEMONS, extras, several=several)
    if several:
        counted = counts(done.left)
        loops, told = counted.pop(("loop_task", "ok")), done.ended.pop(("loop_task", "ok"))
        assert told <= loops <= told + 3  # each may have counted one more, and not told it any more
        assert counted == done.ended == {("main_task", "ok"): 200, ("close_task", "ok"): 1001}


STOPPED = """
import json, threading
track("main_task")
shutdown()

class Connection:
    def __del__(self, track=track):
        track("close_task")

json.connection = Connection()
atexit.register(track, "last_task")
thread = threading.Thread(target=track, args=("thread_task",))
thread.start()
thread.join()
http_tracking("web", "order", "GET", 1, 200, 0.1, 1)
"""


def test_after_a_shutdown_nothing_counts_any_more_and_what_counted_is_shown(several: bool, tmp_path: Path) -> None:
    done = run(tmp_path, STOPPED, several=several)
    assert actions(done.shown) == {("main_task", "ok"): 1}
    assert not any(name.startswith("genapp_http") for name, _ in done.shown)
    assert len(done.ended) == 4
    if several:
        assert actions(done.left) == {("main_task", "ok"): 1}


COLLECTED = """
import gc
from llm_common.prometheus import render_metrics

class Garbage:
    collected = 0
    def __init__(self):
        self.itself = self
    def __del__(self):
        Garbage.collected += 1
        track("garbage_task", wrong=Garbage.collected % 2)
        http_tracking("web", "garbage", "GET", 1, 200, 0.1, 1)
        if Garbage.collected % 100 == 0:
            render_metrics()

configure(app="shop")  # at once: nothing counts that interrupts the first use itself
gc.set_threshold(3, 2, 2)
number = 0
while Garbage.collected < int(sys.argv[1]):
    number += 1
    Garbage()
    track(f"{number % 20}_task", wrong=number % 3)
    http_tracking("web", f"order{'abcdefgh'[number % 8]}", "GET", 1, 200, 0.1, 1)
    if number % 50 == 0:
        render_metrics()
    if number % 90 == 0:
        configure(app="shop")
gc.set_threshold(700)
gc.collect()
os.write(JOURNAL, b"http\\n" * (number + Garbage.collected))
"""


def test_objects_that_the_collector_finds_in_the_midst_of_tracking_count_once(several: bool, tmp_path: Path) -> None:
    done = run(tmp_path, COLLECTED, str(STORM), several=several)
    exchanges = done.ended.pop(("http",))
    assert actions(done.shown) == done.ended
    assert sum(value for (name, _), value in done.shown.items() if name == "genapp_http_requests_total") == exchanges
    print(f"\ncyclic collector: {done.ended.total()} actions and {exchanges} exchanges, all counted once")


STORMY = """
import signal, threading, time
from random import Random
from llm_common.prometheus import render_metrics

class Interruption(Exception): ...

wanted, raises, chance = int(sys.argv[1]), sys.argv[2] == "raises", Random(1)
handled = raised = passed = begun = 0
at_work = False

def handle(*_):
    global handled, raised, at_work
    handled += 1
    track(f"{handled % 30}_handler", wrong=handled % 2)
    if handled % 20 == 0:
        render_metrics()
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.0005))
    if raises and at_work and handled % 2:
        at_work = False
        raised += 1
        raise Interruption

def main():
    global begun
    begun += 1
    track(f"{begun % 30}_task", wrong=begun % 2)
    if begun % 40 == 0:
        render_metrics()
    if begun % 100 == 0 and not raises:  # pluggy takes what a handler raises there for a fault of a plugin
        configure(app="shop")

configure(app="shop")
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0003)
while handled < wanted:
    try:
        at_work = True
        main()
        at_work = False
    except Interruption:
        passed += 1
    at_work = False
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)

def elsewhere():
    for _ in range(2000):
        track("thread_task")
    render_metrics()

thread = threading.Thread(target=elsewhere, daemon=True)
thread.start()
thread.join(60)
assert not thread.is_alive(), "a lock was never released"
os.write(JOURNAL, f"begun {begun}\\nhandled {handled}\\nraised {raised}\\npassed {passed}\\n".encode())
"""


@pytest.mark.parametrize("handler", ["returns", "raises"])
def test_signal_handlers_that_track_and_scrape_lose_nothing_but_what_they_interrupt(
    handler: str, several: bool, tmp_path: Path
) -> None:
    done = run(tmp_path, STORMY, str(STORM), handler, several=several)
    told = {words[0]: int(words[1]) for words in done.ended if words[0] in {"begun", "handled", "raised", "passed"}}
    for name, number in told.items():
        del done.ended[name, str(number)]
    counted, ended = by_kind(counts(done.shown)), by_kind(done.ended)
    assert counted["thread"] == ended["thread"] == 2000
    assert told["handled"] - told["raised"] <= counted["handler"] <= told["handled"]
    assert told["passed"] == told["raised"]  # each exception of a handler has reached the application
    # What a handler's exception interrupts has ended where it came after, and may not have begun where it came before.
    assert ended["task"] <= counted["task"] <= told["begun"]
    assert told["begun"] - ended["task"] <= told["raised"]
    if handler == "returns":
        assert actions(done.shown) == done.ended
    lost = max(0, ended["task"] - counted["task"])
    print(
        f"\nsignals, handler {handler}: {told['handled']} handled, {told['raised']} raised an exception; "
        f"actions: begun {told['begun']}, ended {ended['task']}, counted {counted['task']}, lost {lost}"
    )


def by_kind(totals: Totals) -> Counter[str]:
    """Return how often actions ended by the ends of their names."""
    kinds: Counter[str] = Counter()
    for name, times in by_name(totals).items():
        kinds["thread" if name == "thread_task" else name.rpartition("_")[2]] += times
    return kinds


INSIDE = """
import sys

INSIDE = '''
import os, sys
sys.path[:] = {path!r}
from llm_common import action_tracking, configure, http_tracking
from llm_common.prometheus import render_metrics
configure(app="inner_shop")
for _ in range(1000):
    with action_tracking("inner_task") as tracker:
        tracker.size(1)
http_tracking("web", "order", "GET", 1, 200, 0.1, 1)
if "inner_task" not in render_metrics()[0].decode():
    raise LookupError
os.write({journal}, b"inner_task ok" + bytes([10]))
'''

def run_inside(isolated, code):
    if sys.version_info >= (3, 13):
        import _interpreters
        interpreter = _interpreters.create("isolated" if isolated else "legacy")
        failed = _interpreters.exec(interpreter, code)
        if failed:
            raise SystemExit(str(failed.formatted))
        _interpreters.destroy(interpreter)
    else:
        import _xxsubinterpreters
        interpreter = _xxsubinterpreters.create(isolated=isolated)
        _xxsubinterpreters.run_string(interpreter, code)
        _xxsubinterpreters.destroy(interpreter)

track("outer_task")
for isolated in (True, False):
    run_inside(isolated, INSIDE.format(path=sys.path, journal=JOURNAL))
track("outer_task")
"""


def test_an_interpreter_inside_of_another_counts_for_itself(several: bool, tmp_path: Path) -> None:
    done = run(tmp_path, INSIDE, several=several)
    assert done.ended == {("outer_task", "ok"): 2, ("inner_task", "ok"): 2}
    expected = {("outer_task", "ok"): 2} | ({("inner_task", "ok"): 2000} if several else {})
    assert actions(done.shown) == expected
    if several:
        assert actions(done.left) == expected


@contextmanager
def free_threaded() -> Iterator[str]:
    """Yield an interpreter without a global lock; skip the test where this machine has none."""
    names = [f"python3.{minor}t" for minor in range(13, 20)]
    found = [path for name in names if (path := shutil.which(name))]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        found.append(sys.executable)
    if not found:
        pytest.skip(f"there is no free-threaded build of CPython here: none of {', '.join(names)}")
    yield found[-1]


FREE = """
import sys
from threading import Thread
sys.path += {path!r}
from llm_common import action_tracking, configure
from llm_common.prometheus import render_metrics
configure(app="shop", strict=True)
going = True
def work():
    for number in range({actions}):
        with action_tracking("loop_task") as tracker:
            tracker.size(1)
            if number % 3 == 0:
                tracker.to_fail()
def scrape():
    while going:
        render_metrics()
threads = [Thread(target=work) for _ in range(8)]
scraper = Thread(target=scrape)
for thread in (scraper, *threads): thread.start()
for thread in threads: thread.join()
going = False
scraper.join()
assert not sys._is_gil_enabled()
sys.stdout.write(render_metrics()[0].decode())
"""


def test_threads_that_truly_run_at_once_are_counted_exactly(tmp_path: Path) -> None:
    packages = sysconfig.get_path("purelib")  # pluggy and prometheus_client have no compiled parts
    with free_threaded() as python:
        program = FREE.format(path=[packages], actions=30_000)
        done = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.stderr, done.returncode) == ("", 0)
    assert actions(parsed(done.stdout)) == {("loop_task", "ok"): 160_000, ("loop_task", "error"): 80_000}
