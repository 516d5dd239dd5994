import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from llm_common.backends import multiprocess
from llm_common.backends.multiprocess import MultiprocessStore, unopened
from llm_common.backends.store import BatchedStore
from llm_common.catalog import EXTRA_METRICS, Buckets
from llm_common.contract import HttpSeries, Status
from llm_common.testing.conformance.interruption import within
from scraping import parsed, series

WORKER = """
import sys
from llm_common.prometheus import action_tracking, configure
configure(app="shop_bot", strict=True)
for number in range(int(sys.argv[1])):
    with action_tracking("menu_handler") as tracker:
        tracker.size(2)
try:
    with action_tracking("menu_handler"):
        raise SystemExit
except SystemExit:
    pass
"""

SCRAPER = """
import sys
from llm_common.prometheus import render_metrics
sys.stdout.buffer.write(render_metrics()[0])
"""


def run(code: str, *arguments: str, directory: Path | str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=check, timeout=120
    )


BUCKETS = Buckets((0.25, 1.0), (0.5, 5.0), (10.0, 1000.0))
SERIES = HttpSeries("GET", "200", "orders", "web")
LABELS = {"name": "menu_handler", "env": "dev", "app": "shop_bot"}


def test_any_process_serves_the_sum_over_all_also_of_those_that_are_gone(tmp_path: Path) -> None:
    for number in ("3", "4"):
        run(WORKER, number, directory=tmp_path)
    scrape = run(SCRAPER, directory=tmp_path).stdout
    values = parsed(scrape)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 7
    assert values[series("genapp_action_count_total", status="cancelled", **LABELS)] == 2
    assert values[series("genapp_action_size_total", **LABELS)] == 14
    assert values[series("genapp_action_duration_sec_bucket", le="+Inf", **LABELS)] == 9
    assert values[series("genapp_action_duration_sec_count", **LABELS)] == 9
    assert "_created" not in scrape
    assert "error" not in scrape


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    run(WORKER + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "5", directory=tmp_path, check=False)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 5


def test_forked_children_and_their_parent_are_all_counted(tmp_path: Path) -> None:
    code = WORKER + (
        "\nimport os\n"
        "child = os.fork()\n"
        "with action_tracking('fork_task'): pass\n"
        "if child: os.waitpid(child, 0)\n"
        "else: os._exit(0)\n"
    )
    run(code, "1", directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **{**LABELS, "name": "fork_task"})] == 2
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 1


def test_the_registry_shows_this_process_alone_and_no_created_twins(tmp_path: Path) -> None:
    code = WORKER + (
        "\nfrom prometheus_client import REGISTRY, generate_latest\n"
        "sys.stdout.buffer.write(generate_latest(REGISTRY.restricted_registry("
        "['genapp_action_count_total', 'genapp_action_duration_sec_count', 'genapp_action_size_total'])))\n"
    )
    run(code, "2", directory=tmp_path)
    out = run(code, "2", directory=tmp_path).stdout
    assert parsed(out)[series("genapp_action_count_total", status="ok", **LABELS)] == 2
    assert "_created" not in out


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MultiprocessStore]:
    store = MultiprocessStore(BUCKETS, str(tmp_path))
    yield store
    for file in store._files.values():
        file.close()  # type: ignore[no-untyped-call]


def test_a_process_shows_of_itself_what_one_alone_would_show(store: MultiprocessStore) -> None:
    alone = BatchedStore(BUCKETS)
    scrapes = []
    for one in (store, alone):
        registry = CollectorRegistry()
        registry.register(one)
        for status, seconds in ((Status.OK, 0.1), (Status.ERROR, 0.7), (Status.CANCELLED, 5.0), (Status.OK, 0.5)):
            one.action("menu_handler", "dev", "shop_bot").finished(status, seconds)
        one.action("menu_handler", "dev", "shop_bot").sized(2)
        one.action("menu_handler", "dev", "shop_bot").sized(3)
        one.action("reindex_task", "dev", "shop_bot").sized(1)
        one.http(SERIES, "dev", "shop_bot").finished(0.2, 5, 5000)
        one.http(SERIES, "dev", "shop_bot").finished(3.0, 50, 1)
        for metric in EXTRA_METRICS.values():
            values = tuple(f"a {label}" for label in metric.labels)
            one.metric(metric, values).record(1)
            one.metric(metric, values).record(2)
        scrapes.append(generate_latest(registry))
    assert scrapes[0] == scrapes[1]


def test_what_is_tracked_in_the_middle_of_a_write_is_written_after_it_in_order(store: MultiprocessStore) -> None:
    written: list[int] = []

    def interrupted() -> None:
        for number in (2, 3):
            store.write(written.append, number)
        written.append(1)

    store.write(interrupted)
    store.write(written.append, 4)
    assert written == [1, 2, 3, 4]


def test_a_forked_child_writes_into_files_of_its_own(store: MultiprocessStore, tmp_path: Path) -> None:
    recorder = store.action("menu_handler", "dev", "shop_bot")
    recorder.finished(Status.OK, 0.1)
    recorder.sized(5)
    of_parent = list(store._files.values())
    store.after_fork()  # as the interpreter calls it in the child
    recorder.finished(Status.OK, 0.1)
    name = 'genapp_action_count_total{app="shop_bot",env="dev",name="menu_handler",status="ok"}'
    alone, summed = CollectorRegistry(), CollectorRegistry()
    alone.register(store)
    MultiProcessCollector(summed, str(tmp_path))  # type: ignore[no-untyped-call]
    assert f"{name} 1.0\n" in generate_latest(alone).decode()
    text = generate_latest(summed).decode()
    assert f"{name} 2.0\n" in text
    assert 'genapp_action_duration_sec_bucket{app="shop_bot",env="dev",le="0.25",name="menu_handler"} 2.0\n' in text
    for file in of_parent:
        file.close()  # type: ignore[no-untyped-call]


def test_a_forked_child_that_gets_no_file_tries_again(
    store: MultiprocessStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(directory: str, kind: str) -> tuple[str, int]:
        raise OSError("too many open files")

    recorder = store.action("menu_handler", "dev", "shop_bot")
    recorder.finished(Status.OK, 0.1)
    of_parent = list(store._files.values())
    with monkeypatch.context() as patch:
        patch.setattr("llm_common.backends.multiprocess.begin_file", refused)
        store.after_fork()
        with pytest.raises(OSError, match="too many open files"):
            recorder.finished(Status.OK, 0.1)
    recorder.finished(Status.OK, 0.1)
    (count, *_) = [sample for family in store.collect() for sample in family.samples if "count_total" in sample.name]
    assert count.value == 1
    with pytest.raises(OSError, match=r"^this process has no file of its own for its metrics$"):
        unopened("key", 1.0, 0.0)
    for file in of_parent:
        file.close()  # type: ignore[no-untyped-call]


def test_a_process_that_only_bound_its_series_shows_none(store: MultiprocessStore) -> None:
    store.action("menu_handler", "dev", "shop_bot")
    store.http(SERIES, "dev", "shop_bot")
    for metric in EXTRA_METRICS.values():
        store.metric(metric, tuple(metric.labels))
    assert not any(family.samples for family in store.collect())


def test_a_scrape_at_any_moment_of_a_workers_start_can_read_its_files(tmp_path: Path) -> None:
    code = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "from llm_common.prometheus import action_tracking, configure\n"
        "from llm_common.testing.conformance.interruption import interrupted_everywhere\n"
        "configure(app='shop_bot', strict=True)\n"
        "def first():\n"
        "    with action_tracking('menu_handler'): pass\n"
        "def scrape():\n"
        "    registry = CollectorRegistry()\n"
        "    MultiProcessCollector(registry)\n"
        "    generate_latest(registry)\n"
        "print(interrupted_everywhere(first, scrape))\n"
    )
    assert int(run(code, directory=tmp_path).stdout) > 50
    assert {path.suffix for path in tmp_path.iterdir()} == {".db"}


def test_a_process_that_has_the_number_of_an_earlier_one_goes_on_with_its_files(tmp_path: Path) -> None:
    for _ in range(2):
        store = MultiprocessStore(Buckets(), str(tmp_path))
        store.action("menu_handler", "dev", "shop_bot").finished(Status.OK, 0.5)
        for file in store._files.values():
            file.close()  # type: ignore[no-untyped-call]
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 2


def test_a_child_of_a_daemon_that_closed_all_descriptors_closes_no_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    store = MultiprocessStore(Buckets(), str(tmp_path / "metrics"))
    recorder = store.action("menu_handler", "dev", "shop_bot")
    recorder.finished(Status.OK, 0.5)
    before = [*store._files.values()]
    reused, closed = store._locks
    for descriptor in (reused, closed):
        os.close(descriptor)
    with (tmp_path / "other").open("w") as other:
        assert other.fileno() in {reused, closed}
        store.after_fork()
        assert other.write("still open")
    recorder.finished(Status.OK, 0.5)
    for file in (*before, *store._files.values()):
        file.close()  # type: ignore[no-untyped-call]
    values = parsed(run(SCRAPER, directory=tmp_path / "metrics").stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 2


FORKED = """
import os, sys
from llm_common.backends import multiprocess
from llm_common.prometheus import action_tracking, configure
def track(times):
    for _ in range(times):
        with action_tracking("menu_handler"): pass
configure(app="shop_bot")
track(10)
begin_file = multiprocess.begin_file
def refused(*_):
    raise OSError("too many open files")
multiprocess.begin_file = refused
child = os.fork()
if not child:
    track(1)
    multiprocess.begin_file = begin_file
    track(100)
    os._exit(0)
os.waitpid(child, 0)
multiprocess.begin_file = begin_file
track(5)
"""


def test_a_child_that_can_open_no_file_writes_into_none_of_its_parent_and_tries_again(tmp_path: Path) -> None:
    run(FORKED, directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 115


def test_a_file_that_cannot_be_mapped_takes_no_descriptor_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise OSError("too many open files")

    store = MultiprocessStore(Buckets(), str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("llm_common.backends.multiprocess.MmapedDict", refused)
    with pytest.raises(OSError, match="too many"):
        store.action("menu_handler", "dev", "shop_bot").finished(Status.OK, 0.5)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


def test_who_is_alone_at_the_end_of_the_interpreter_waits_for_no_thread_that_stands_still_in_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MultiprocessStore(Buckets(), str(tmp_path))
    recorder = store.action("menu_handler", "dev", "shop_bot")
    writing, release = Event(), Event()
    ending = False

    def stand_still() -> None:
        writing.set()
        release.wait(30)

    monkeypatch.setattr(multiprocess, "is_finalizing", lambda: ending)
    store.at_exit()
    recorder.finished(Status.OK, 0.5)
    thread = Thread(target=store.write, args=(stand_still,))
    thread.start()
    writing.wait(30)
    ending = True
    try:
        for _ in range(2):
            within(20, lambda: recorder.finished(Status.OK, 0.5), "tracking")
    finally:
        release.set()
        thread.join()
    for file in store._files.values():
        file.close()  # type: ignore[no-untyped-call]
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 3


def test_a_child_in_another_directory_finds_the_one_of_its_parent(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from llm_common.prometheus import action_tracking, configure\n"
        "os.chdir(os.environ['PROMETHEUS_MULTIPROC_DIR'] + '/..')\n"
        "os.environ['PROMETHEUS_MULTIPROC_DIR'] = os.path.basename(os.environ['PROMETHEUS_MULTIPROC_DIR'])\n"
        "configure(app='shop_bot', strict=True)\n"
        "with action_tracking('menu_handler'): pass\n"
        "os.chdir('/')\n"
        "child = os.fork()\n"
        "with action_tracking('menu_handler'): pass\n"
        "if child: os.waitpid(child, 0)\n"
    )
    run(code, directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 3


def test_a_size_alone_and_an_action_alone_show_only_their_own_series(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from prometheus_client import REGISTRY, generate_latest\n"
        "from llm_common.prometheus import action_tracking, configure\n"
        "configure(app='shop_bot', strict=True)\n"
        "task = action_tracking('size_task').__enter__()\n"
        "task.size(2)\n"
        "with action_tracking('plain_task'): pass\n"
        "sys.stdout.buffer.write(generate_latest(REGISTRY))\n"
    )
    values = parsed(run(code, directory=tmp_path).stdout)
    shown = {(name, dict(labels).get("name")) for name, labels in values if name.startswith("genapp")}
    assert shown == {
        ("genapp_action_size_total", "size_task"),
        ("genapp_action_count_total", "plain_task"),
        ("genapp_action_duration_sec_bucket", "plain_task"),
        ("genapp_action_duration_sec_count", "plain_task"),
        ("genapp_action_duration_sec_sum", "plain_task"),
    }


def test_signal_handlers_that_track_neither_deadlock_nor_lose(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "from llm_common.prometheus import action_tracking, configure, render_metrics\n"
        "configure(app='shop_bot', strict=True)\n"
        "handled = 0\n"
        "def handle(*_):\n"
        "    global handled\n"
        "    with action_tracking(f'{handled % 50}_handler') as tracker:\n"
        "        tracker.size(1)\n"
        "    handled += 1\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.0003)\n"
        "signal.signal(signal.SIGALRM, handle)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0003)\n"
        "done = 0\n"
        "while handled < 500:\n"
        "    with action_tracking(f'{done % 50}_handler') as tracker:\n"
        "        tracker.size(1)\n"
        "    done += 1\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(handled + done)\n"
    )
    tracked = float(run(code, directory=tmp_path).stdout)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    for metric in ("genapp_action_count_total", "genapp_action_size_total", "genapp_action_duration_sec_count"):
        assert sum(value for (name, _), value in values.items() if name == metric) == tracked


def test_threads_of_one_process_are_counted_exactly(tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "from llm_common.prometheus import action_tracking, configure\n"
        "configure(app='shop_bot', strict=True)\n"
        "def work():\n"
        "    for number in range(2000):\n"
        "        with action_tracking('menu_handler') as tracker: tracker.size(1)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    run(code, directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 8000
    assert values[series("genapp_action_duration_sec_count", **LABELS)] == 8000
    assert values[series("genapp_action_size_total", **LABELS)] == 8000


def test_two_registries_of_one_process_share_its_files_and_count_once(tmp_path: Path) -> None:
    code = (
        "from prometheus_client import CollectorRegistry\n"
        "from llm_common.backends.prometheus import PrometheusBackend\n"
        "from llm_common.prometheus import action_tracking, configure\n"
        "for number in range(2):\n"
        "    configure(app='shop_bot', backends=[PrometheusBackend(CollectorRegistry())], strict=True)\n"
        "    with action_tracking('menu_handler'): pass\n"
    )
    run(code, directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert values[series("genapp_action_count_total", status="ok", **LABELS)] == 2


def test_bucket_bounds_can_change_until_the_first_action(tmp_path: Path) -> None:
    code = (
        "from llm_common.prometheus import action_tracking, configure\n"
        "configure(app='shop_bot')\n"
        "configure(app='shop_bot', action_duration_buckets=[5], strict=True)\n"
        "with action_tracking('menu_handler'): pass\n"
    )
    run(code, directory=tmp_path)
    values = parsed(run(SCRAPER, directory=tmp_path).stdout)
    assert {dict(labels).get("le") for _, labels in values} == {None, "5.0", "+Inf"}


@pytest.mark.parametrize("directory", ["missing", "pyproject.toml"])
def test_a_directory_that_is_missing_is_an_error_with_the_fix(tmp_path: Path, directory: str) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    failed = run(WORKER, "1", directory=tmp_path / directory, check=False)
    assert failed.returncode == 1
    assert "ConfigurationError" in failed.stderr
    assert "is no directory; create it, empty, before the processes start" in failed.stderr


def test_an_endpoint_that_does_not_sum_shows_the_exchanges_of_its_own_process(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from prometheus_client import REGISTRY, generate_latest\n"
        "from llm_common import dispatch\n"
        "from llm_common.contract import HttpSeries\n"
        "from llm_common.prometheus import configure, http_tracking, render_metrics\n"
        "configure(app='shop_bot', strict=True)\n"
        "dispatch.bind_http(HttpSeries('GET', '200', 'bound', 'llm'))\n"
        "http_tracking('llm', 'v1/chat', 'POST', 2000, 200, 0.5, 10)\n"
        "sys.stdout.buffer.write((generate_latest(REGISTRY), render_metrics()[0])[int(sys.argv[1])])\n"
    )
    for which in ("0", "1"):
        (tmp_path / which).mkdir()
    own, summed = (parsed(run(code, which, directory=tmp_path / which).stdout) for which in ("0", "1"))
    assert {key: value for key, value in own.items() if key[0].startswith("genapp")} == summed
    labels = {"method": "POST", "status": "200", "resource": "v1/chat", "app_type": "llm"}
    common = {**labels, "env": "dev", "app": "shop_bot"}
    assert summed[series("genapp_http_requests_total", **common)] == 1
    assert summed[series("genapp_http_request_size_bytes_bucket", direction="out", le="1000.0", **common)] == 0
    assert summed[series("genapp_http_request_size_bytes_bucket", direction="out", le="5000.0", **common)] == 1
    assert not any("bound" in dict(labels).values() for _, labels in summed)
