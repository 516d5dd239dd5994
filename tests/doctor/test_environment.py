"""What the doctor says of settings, plugins, versions and the directory; each fault is there for real."""

import os
import subprocess
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from doctoring import right, wrong
from llm_common.backends.memory import MemoryBackend
from llm_common.doctor import environment, processes
from llm_common.doctor.environment import Environment, Problem, release, remote, unmet
from llm_common.doctor.run import Result, examine, looked_at
from llm_common.prometheus import configure


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLM_COMMON_APP", "shop_bot")
    monkeypatch.setenv("LLM_COMMON_ENV", "prod")


def here() -> list[Result]:
    return looked_at(environment.here())


def test_a_healthy_environment_has_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(here()) == {}
    assert right(here()) == {"DR101", "DR102", "DR103", "DR104", "DR201", "DR202", "DR203", "DR204", "DR301"}
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared))
    assert wrong(here()) == {}
    assert right(here()) >= {"DR303", "DR304", "DR305", "DR306"}
    assert list(shared.iterdir()) == []


def test_settings_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_MAX_SERIES", "many")
    found = wrong(here())
    assert list(found) == ["DR101"]
    assert "LLM_COMMON_MAX_SERIES is 'many'" in found["DR101"]
    assert right(here()) == {"DR102", "DR202", "DR203", "DR301"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.llm_common]\nmax_serie = 3\n", "unknown setting 'max_serie'; did you mean 'max_series'?"),
        ("[tool", "pyproject.toml can't be read"),
    ],
)
def test_a_pyproject_that_is_wrong(text: str, message: str) -> None:
    Path("pyproject.toml").write_text(text)
    assert message in wrong(here())["DR101"]


def test_a_variable_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_MAX_SERIE", "3")
    assert wrong(here()) == {
        "DR102": "nothing reads the variable LLM_COMMON_MAX_SERIE; did you mean 'LLM_COMMON_MAX_SERIES'?"
    }


def test_app_and_env_that_nothing_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_COMMON_APP")
    monkeypatch.delenv("LLM_COMMON_ENV")
    assert wrong(here()) == {
        "DR103": "nothing sets app, so that it is the name of the main script",
        "DR104": "nothing sets env, so that it is 'dev'",
    }


def test_app_and_env_with_strange_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_APP", "gunicorn")
    monkeypatch.setenv("LLM_COMMON_ENV", "preprd")
    assert wrong(here()) == {
        "DR103": "app is 'gunicorn', which is what runs the application",
        "DR104": "env is 'preprd'; did you mean 'preprod'?",
    }


def installed_plugin(directory: Path, code: str, requires: str = "llm_common>=0.1") -> None:
    """Make a distribution importable whose entry point is ``broken``."""
    (directory / "broken.py").write_text(code)
    info = directory / "llm_common_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: llm-common-broken\nVersion: 1.0\nRequires-Dist: {requires}\n"
        "Requires-Dist: nothing-like-it; extra == 'more'\n"
    )
    (info / "entry_points.txt").write_text("[llm_common]\nbroken = broken\n")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_it", "failed with ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("", "which implements no hook"),
        ("def __dir__(): raise OSError('no')", "the plugin 'broken' can't be used: OSError: no"),
    ],
)
def test_a_plugin_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    installed_plugin(tmp_path, code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    monkeypatch.setenv("LLM_COMMON_PLUGINS", "broken")
    found = wrong(here())
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert list(found) == ["DR201"]
    assert message in found["DR201"]


def test_what_a_plugin_prints_is_not_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_plugin(tmp_path, "print('welcome')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    monkeypatch.setenv("LLM_COMMON_PLUGINS", "broken")
    here()
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert capsys.readouterr() == ("", "welcome\n")


def test_plugins_of_a_process_from_another_installation_are_not_looked_for(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    for program, there in ((str(other), False), (sys.executable, True)):
        with subprocess.Popen(
            [program, "-c", "import sys; print(flush=True); sys.stdin.read()"],
            env={**os.environ, "LLM_COMMON_PLUGINS": "nothing"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as running:
            assert running.stdout
            assert running.stdin
            running.stdout.readline()
            found = {one.code for one in examine([str(running.pid)])}
            running.stdin.close()
        assert ({"DR201", "DR202", "DR203"} <= found) is there
        assert "DR204" in found


def test_every_unknown_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "promtheus,memory")
    monkeypatch.setenv("LLM_COMMON_PLUGINS", "nothing")
    found = [one.message for one in here() if one.severity == "error"]
    assert [one.split(",")[0] for one in found] == ["unknown backend 'promtheus'", "unknown plugin 'nothing'"]


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ("llm_common>=7", "llm-common-broken 1.0 needs llm_common>=7, and {} is installed"),
        ("nothing-like-it", "llm-common-broken 1.0 needs nothing-like-it, which isn't installed"),
    ],
)
def test_a_plugin_for_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires: str, message: str
) -> None:
    installed_plugin(tmp_path, "", requires)
    monkeypatch.syspath_prepend(tmp_path)
    assert wrong(here()) == {"DR202": message.format(distribution("llm_common").version)}


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("needed", True),
        ("needed>=1.2", True),
        ("needed (>=1.2.0)", True),
        ("needed<1.2", False),
        ("needed!=1.2.0,>=1", False),
        ("needed>=1,<2", True),
        ("needed==1.*", True),
        ("needed~=1.2", True),
        ("needed[more]>1.3", False),
        ("needed==1.2", True),
        ("needed<=1.1", False),
    ],
)
def test_requirements_are_compared_by_the_numbers_of_releases(
    monkeypatch: pytest.MonkeyPatch, requirement: str, met: bool
) -> None:
    monkeypatch.setattr(environment, "distribution", lambda _: SimpleNamespace(version="1.2.0rc1"))
    needing = cast("Distribution", SimpleNamespace(name="a", version="1"))
    assert (list(unmet(needing, requirement)) == []) is met


def test_the_numbers_of_a_version() -> None:
    assert [release(one) for one in ("1.2.0", "26.5b1", "none", "10")] == [(1, 2), (26, 5), (), (10,)]


def test_what_an_extra_needs_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_plugin(tmp_path, "")
    monkeypatch.syspath_prepend(tmp_path)
    assert wrong(here()) == {}


def test_a_source_tree_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(environment, "distribution", nowhere)
    monkeypatch.setattr(environment, "entry_points", lambda group: [])
    assert "DR202" in right(here())


def test_an_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text("[tool.llm_common.monitoring]\n")
    assert wrong(here()) == {}
    monkeypatch.setitem(sys.modules, "promql_parser", None)
    assert wrong(here()) == {
        "DR203": "there is a table [tool.llm_common.monitoring], and promql_parser can't be imported"
    }


def test_two_backends_that_write_into_one_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "prometheus,opentelemetry")
    assert wrong(here()) == {}
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console, prometheus")
    assert list(wrong(here())) == ["DR204"]


@pytest.mark.parametrize(
    ("variable", "value", "workers"),
    [
        ("WEB_CONCURRENCY", "3", 3),
        ("UVICORN_WORKERS", "2", 2),
        ("GUNICORN_CMD_ARGS", "--bind=127.0.0.1 --workers=4", 4),
        ("GUNICORN_CMD_ARGS", "-w 4", 4),
        ("GUNICORN_CMD_ARGS", "-w5", 5),
        ("WEB_CONCURRENCY", "1", 0),
        ("GUNICORN_CMD_ARGS", "--workers", 0),
        ("GUNICORN_CMD_ARGS", "'", 0),
    ],
)
def test_workers_without_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, workers: int
) -> None:
    monkeypatch.setenv(variable, value)
    message = f"there are {workers} workers, and PROMETHEUS_MULTIPROC_DIR isn't set"
    assert wrong(here()) == ({"DR301": message} if workers else {})
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert wrong(here()) == {}
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "noop")
    assert "DR301" not in {one.code for one in here()}


def test_a_directory_that_does_not_exist_or_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    assert wrong(here()) == {"DR303": f"PROMETHEUS_MULTIPROC_DIR is '{tmp_path}/missing', which is no directory"}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/proc")
    assert list(wrong(here())) == ["DR304"]


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:40 / /srv/my\\040shop rw,relatime shared:1 - nfs4 nas:/shop rw
32 22 0:41 / /srv rw,relatime - fuse.sshfs nas:/ rw
33 22 0:42 / /srv rw,relatime - tmpfs tmpfs rw
"""


def test_a_directory_on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [one.message for one in remote("/srv/my shop/metrics", MOUNTS)] == [
        "'/srv/my shop/metrics' is on the network file system nfs4"
    ]
    assert list(remote("/srv/shop", MOUNTS)) == []
    assert len(list(remote("/srv/shop", MOUNTS.replace("tmpfs", "fuse.sshfs")))) == 1
    assert list(remote("/run", MOUNTS)) == []
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    assert "DR305" not in {one.code for one in here()}


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    return ended.pid


def test_files_of_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    path = tmp_path / f"counter_llm_common_{dead_process()}.db"
    path.write_bytes(b"1234")
    (tmp_path / "notes.txt").write_text("nothing of ours")
    day_ago = time.time() - 86400
    os.utime(path, (day_ago, day_ago))
    message = (
        f"'{tmp_path}' has 1 file of processes of an earlier run, with 4 bytes; "
        "nothing was written to the oldest for 24.0 hours"
    )
    assert wrong(here()) == {"DR306": message}
    living = tmp_path / f"histogram_{os.getpid()}.db"
    living.write_bytes(b"")
    assert wrong(here()) == {"DR306": message}
    os.utime(path)  # written while this process ran: of a worker of this run that died, which is right
    assert wrong(here()) == {}
    os.utime(path, (day_ago, day_ago))
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")  # where nobody knows when a run began
    assert wrong(here()) == {}


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise PermissionError

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr("os.scandir", refused)
    assert environment.listed(str(tmp_path)) == []
    assert wrong(here()) == {}


def test_a_relative_directory_is_that_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        cwd=tmp_path,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": "metrics"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert environment.of_process(process.pid).shared == str(tmp_path / "metrics")
        process.communicate(b"\n")


@pytest.mark.parametrize("name", ["counter_llm_common_{}", "counter_llm_common_{}_a1b2", "gauge_livesum_{}_a_unlocked"])
def test_files_are_known_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    path = tmp_path / f"{name.format(dead_process())}.db"
    path.write_bytes(b"")
    assert list(wrong(here())) == ["DR306"]
    path.rename(tmp_path / f"{name.format(os.getpid())}.db")
    assert wrong(here()) == {}
    (tmp_path / f"{name.format('folded')}.db").write_bytes(b"")
    assert wrong(here()) == {}


def test_the_run_of_a_worker_began_with_its_master() -> None:
    code = "import os, sys, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout
        assert master.stdin
        worker = int(master.stdout.readline())
        assert environment.run_began(worker) == processes.start_of(master.pid)
        assert environment.run_began(master.pid) == processes.start_of(master.pid)
        master.stdin.close()
        master.wait()


def test_a_working_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert wrong(here()) == {}


def test_the_process_itself_is_looked_at_with_its_settings() -> None:
    settings = configure(app="gunicorn", backends=["memory", MemoryBackend()])
    found = examine(settings=settings)
    assert {one.target for one in found} == {"this process"}
    assert wrong(found) == {"DR103": "app is 'gunicorn', which is what runs the application"}


def in_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    show = (
        "\nfrom llm_common.doctor.run import examine\n"
        "print([(one.code, one.message) for one in examine() if one.severity == 'error'])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code + show],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_the_variable_set_after_the_import(tmp_path: Path) -> None:
    late = f"import os, prometheus_client\nos.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path)!r}\n"
    assert "[('DR302', \"PROMETHEUS_MULTIPROC_DIR is set, but it wasn't yet when" in in_process(late).stdout
    assert in_process("import prometheus_client", PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout == "[]\n"
    missing = in_process("", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "missing")).stdout
    assert "DR303" in missing
    assert "DR204" not in missing


def test_metrics_of_an_older_package_in_the_registry() -> None:
    older = "from prometheus_client import Counter\nCounter('genapp_action_count_total', 'older', ['name'])\n"
    assert "[('DR204', \"the registry already has metrics of the same name" in in_process(older).stdout
    assert in_process("").stdout == "[]\n"


def test_an_environment_without_settings_says_nothing_of_what_depends_on_them() -> None:
    bare = Environment("bare", {}, None, "broken")
    assert [look(bare) for look in (environment.unnamed_app, environment.unknown_env, environment.two_writers)] == [
        None,
        None,
        None,
    ]
    assert list(environment.unreadable_settings(bare)) == [Problem("broken", "mend it, or take it out")]
