"""Several processes count exactly: the totals on the scrape are what was sent and answered, whoever was killed.

An action that is under way in a process that is killed may be counted or not. One that has ended, as it has by the time
when the answer is on its way, is never lost. ``KILLS=50`` kills more often than by default.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from celery import Celery
from celery.exceptions import WorkerLostError

import folder_broker
from loading import PATIENCE, Load, gunicorn, loaded
from scraping import Series, action_totals, scrape_of
from servers import running

pytestmark = [pytest.mark.e2e, pytest.mark.once]

KILLS = int(os.environ.get("KILLS", "5"))

WSGI = """
import os
from llm_common import action_tracking, configure
from llm_common.integrations.wsgi import MetricsMiddleware
from llm_common.prometheus import metrics_wsgi_app

configure(app="shop")
metrics = metrics_wsgi_app()

def answer(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    with action_tracking("order_handler") as tracker:
        tracker.size(1)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

app = MetricsMiddleware(answer)
"""

ASGI = """
import os
from llm_common import action_tracking, configure
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.prometheus import metrics_asgi_app

configure(app="shop")
metrics = metrics_asgi_app()

async def answer(scope, receive, send):
    if scope["type"] != "http" or scope["path"] == "/metrics":
        return await metrics(scope, receive, send)
    with action_tracking("order_handler") as tracker:
        tracker.size(1)
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

app = MetricsMiddleware(answer)
"""


def total(values: dict[Series, float], metric: str) -> float:
    return sum(value for (name, _), value in values.items() if name == metric)


def kill_workers(load: Load, times: int) -> None:
    """Kill the process that answered last, at a random moment, ``times`` times."""
    for _ in range(times):
        load.wait_for_answers(random.randint(1, 40))
        os.kill(load.latest, signal.SIGKILL)
        killed = load.latest
        load.wait_until(lambda killed=killed: load.latest != killed)  # type: ignore[misc]


def restart(server: subprocess.Popen[str], load: Load) -> None:
    """Restart the workers one after the other, and wait until none of the old ones answers any more."""
    old = dict(load.answered_by)
    server.send_signal(signal.SIGHUP)
    load.wait_until(lambda: len(load.answered_by.keys() - old.keys()) >= 2 and not any(map(lives, old)))


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("application", "worker"), [(WSGI, "sync"), (ASGI, "uvicorn.workers.UvicornWorker")], ids=["wsgi", "asgi"]
)
def test_the_workers_of_a_server_lose_nothing(application: str, worker: str, tmp_path: Path) -> None:
    options = ["--workers=2", f"--worker-class={worker}", "--max-requests=200", "--max-requests-jitter=100"]
    began = monotonic()
    with gunicorn(tmp_path, application, *options) as (server, port):
        with loaded(port) as load:
            load.wait_for_answers(600)
            restart(server, load)
        gracefully, values = load, scrape_of(tmp_path / "metrics")
        for metric in ("action_count_total", "action_size_total", "action_duration_sec_count", "http_requests_total"):
            assert load.answered <= total(values, f"genapp_{metric}") <= load.sent, metric
        with loaded(port) as load:
            kill_workers(load, KILLS)
    values = scrape_of(tmp_path / "metrics")
    assert len([*(tmp_path / "metrics").glob("*.db")]) == 2  # of all those workers: counters, and histograms
    counted = total(values, "genapp_action_count_total")
    answered, sent = gracefully.answered + load.answered, gracefully.sent + load.sent
    print(
        f"\ngunicorn, {worker}: {len(gracefully.answered_by) + len(load.answered_by)} workers, {KILLS} killed; "
        f"sent {sent}, answered {answered}, counted {counted:.0f}, lost {max(0, answered - counted):.0f} "
        f"({monotonic() - began:.0f} s)"
    )
    assert answered <= counted <= sent
    # An exchange ends only after its last byte was sent, so one may be under way although the client has all of it.
    assert answered - KILLS * 3 <= total(values, "genapp_http_requests_total") <= sent


PROCESSES = """
import multiprocessing, os, random, signal, sys
from llm_common import action_tracking, configure

configure(app="shop")

def work(told, actions):
    for _ in range(actions):
        with action_tracking("order_handler") as tracker:
            tracker.size(1)
        told.send_bytes(b".")  # this action has ended

def run(context, kill):
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(writer, 10_000_000 if kill else 500))
    process.start()
    writer.close()
    ended, enough = 0, random.randint(1, 2000) if kill else None
    try:
        while True:
            reader.recv_bytes()
            ended += 1
            if ended == enough:
                process.kill()
    except EOFError:
        process.join()
        return ended

if __name__ == "__main__":
    method, kills = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context(method)
    with action_tracking("parent_task"):
        pass
    print(sum(run(context, kill) for kill in [True] * kills + [False] * 2))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_of_multiprocessing_lose_nothing(method: str, tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(PROCESSES)
    (tmp_path / "metrics").mkdir()
    command = [sys.executable, str(tmp_path / "orders.py"), method, str(KILLS)]
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    ended = int(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)
    counted = action_totals(tmp_path / "metrics", "shop")
    orders = counted.pop(("order_handler", "ok"))
    print(
        f"\nmultiprocessing, {method}: {KILLS + 2} processes, {KILLS} killed; ended {ended}, counted {orders:.0f}, "
        f"lost {max(0, ended - orders):.0f}"
    )
    assert counted == {("parent_task", "ok"): 1}
    assert ended <= orders <= ended + KILLS  # each may have counted one more, and not told it any more


TASKS = """
import os, random, signal
from threading import Timer
from celery import Celery
from llm_common import action_tracking
from llm_common.integrations.celery import track_tasks

app = Celery("shop")
app.config_from_object("settings")
track_tasks()

@app.task(name="shop.tasks.pack")
def pack():
    return os.getpid()

@app.task(name="shop.tasks.doomed")
def doomed():
    ended = os.open("ended", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    Timer(random.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        with action_tracking("step_task"):
            pass
        os.write(ended, b".")
"""

SETTINGS = """
import folder_broker
broker_url = "folder://localhost"
broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.01
}
result_backend = "file://" + __import__("os").path.abspath("results")
worker_lost_wait = 0.1
"""


@contextmanager
def celery_worker(folder: Path) -> Iterator[Celery]:
    """Run a worker with a pool of processes; yield a client of it. At the end of the block it has stopped."""
    for name in ("queue", "control", "results", "metrics"):
        (folder / name).mkdir()
    (folder / "tasks.py").write_text(TASKS)
    (folder / "settings.py").write_text(SETTINGS)
    environ = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        "LLM_COMMON_APP": "shop",
        "PYTHONPATH": str(Path(folder_broker.__file__).parent),
    }
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--max-tasks-per-child=15"]
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where the client finds the folders too
        with running([*command, *options], cwd=folder, env=environ):
            client = Celery("client", set_as_current=False)
            exec(SETTINGS, settings := {})  # type: ignore[var-annotated]
            client.conf.update({name: value for name, value in settings.items() if not name.startswith("__")})
            yield client


def test_the_pool_of_a_celery_worker_loses_nothing(tmp_path: Path) -> None:
    succeeded = lost = 0
    processes = set()
    with celery_worker(tmp_path) as client:
        for _ in range(KILLS):
            packed = [client.send_task("shop.tasks.pack") for _ in range(10)]
            doomed = client.send_task("shop.tasks.doomed")
            processes |= {result.get(timeout=PATIENCE, interval=0.01) for result in packed}
            succeeded += len(packed)
            with pytest.raises(WorkerLostError):
                doomed.get(timeout=PATIENCE, interval=0.01)
            lost += 1
    counted = action_totals(tmp_path / "metrics", "shop")
    steps, ended = counted.pop(("step_task", "ok")), os.path.getsize(tmp_path / "ended")
    print(
        f"\nCelery, prefork: {len(processes)} processes, {KILLS} killed; tasks: sent {succeeded + lost}, counted "
        f"{sum(counted.values()):.0f}; steps: ended {ended}, counted {steps:.0f}, lost {max(0, ended - steps):.0f}"
    )
    assert counted == {("pack_task", "ok"): succeeded, ("doomed_task", "error"): lost}
    assert ended <= steps <= ended + KILLS
