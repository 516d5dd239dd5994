import os
import subprocess
import sys

import pytest

from llm_common.doctor import processes
from llm_common.doctor.run import examine


def test_process_1_runs_and_what_ended_does_not() -> None:
    assert processes.alive(os.getpid())
    assert processes.alive(10**30)  # no process, but nobody can say so
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert not processes.alive(ended.pid)


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert processes.alive(1)


def test_a_process_that_is_gone_cannot_be_looked_at() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (found,) = examine([str(ended.pid)])
    assert (found.target, found.code, found.severity, found.message) == (
        f"process {ended.pid}",
        "DR401",
        "error",
        "the process can't be looked at: No such file or directory",
    )


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        ("uvicorn shop:app --workers 3", 3),
        ("uvicorn shop:app --workers=3", 3),
        ("gunicorn -w 2 shop:app", 2),
        ("gunicorn -w2 shop:app", 2),
        ("gunicorn shop:app -w", 0),
        ("gunicorn --workers many shop:app", 0),
        ("python shop.py", 0),
        ("celery -A shop worker --concurrency 4", 4),
        ("python /srv/bin/celery -A shop worker -c2 --concurrency=3", 3),
        ("celery -A shop worker -P prefork -c 2", 2),
        ("celery -A shop worker --pool=threads -c 2", 0),
        ("celery -A shop worker", 0),
        ("gunicorn -c 2 shop:app", 0),
    ],
)
def test_a_command_says_how_many_workers_there_are(command: str, workers: int) -> None:
    assert processes.named_workers(command.split()) == workers


def test_a_process_that_says_how_many_workers_it_has() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--workers", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout
        assert running.stdin
        running.stdout.readline()
        assert processes.workers(running.pid) == 2
        running.stdin.close()
