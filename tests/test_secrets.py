"""No secret gets out: into no log, label, repr, message or report, wherever one may pass."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
from prometheus_client import CollectorRegistry
from telegram import Bot
from telegram.error import TelegramError
from typer.testing import CliRunner

from doctoring import page_server
from llm_common import action_tracking, configure, http_tracking
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.cli.app import app
from llm_common.dispatch import active
from llm_common.http_exchange import Exchange
from llm_common.http_labels import SERVER, TELEGRAM
from llm_common.integrations.aiohttp_client import tracked_trace_config
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.integrations.httpx import AsyncTrackedTransport, TrackedTransport
from llm_common.integrations.requests import TrackedAdapter
from llm_common.integrations.telegram import TrackedRequest
from llm_common.integrations.wsgi import MetricsMiddleware as WSGIMetricsMiddleware
from llm_common.prometheus import MetricsServer, render_metrics, start_metrics_server

BOT = "8123456789:AAH-zyxwvutsrqponmlkjihgfedcba98765"
KEY = "sk-proj-hunter2hunter2hunter2"
PASSWORD = "hunter2-password"
BEARER = "hunter2-bearer"
SECRETS = (BOT, BOT.partition(":")[2], KEY, PASSWORD, BEARER)


class Heard:
    """All that was logged by the package at any level, and whatever else a test tells it."""

    def __init__(self) -> None:
        self.text = io.StringIO()

    def tell(self, *things: object) -> None:
        print(*things, sep="\n", file=self.text)

    def check(self) -> None:
        text = self.text.getvalue()
        assert text
        for secret in SECRETS:
            assert secret not in text, text[max(0, text.index(secret) - 300) :][:600]


@pytest.fixture
def heard(registry: CollectorRegistry) -> Iterator[Heard]:
    """Yield what hears everything; at the end, no secret is in it."""
    heard, logger = Heard(), logging.getLogger("llm_common")
    handler = logging.StreamHandler(heard.text)
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    settings = configure(app="shop", backends=[PrometheusBackend(registry)], extra_metrics="all")
    yield heard
    heard.tell(repr(settings), repr(active()), repr(vars(active())))
    for accept in ("", "application/openmetrics-text"):
        heard.tell(render_metrics(accept, registry=registry)[0].decode())
    logger.setLevel(before)
    logger.removeHandler(handler)
    heard.check()


URLS = (
    f"/bot{BOT}/sendMessage",
    f"/file/bot{BOT}/photos/file_1.jpg",
    f"/bot{BOT.replace(':', '%3A')}/getMe",
    f"/v1/chat?key={KEY}&api_key={PASSWORD}#{BEARER}",
    f"/v1/{KEY}/models",
)
HEADERS = {"Authorization": f"Bearer {BEARER}", "X-Api-Key": KEY, "Cookie": f"session={PASSWORD}"}


@pytest.mark.parametrize("app_type", [TELEGRAM, "llm"])
def test_clients_put_no_secret_of_an_address_or_header_anywhere(heard: Heard, app_type: str) -> None:
    with start_metrics_server() as server:
        addresses = [f"http://127.0.0.1:{server.port}{one}" for one in URLS]
        addresses += [f"http://user:{PASSWORD}@127.0.0.1:{server.port}/metrics", f"http://127.0.0.1:1/bot{BOT}/getMe"]
        transport, adapter = TrackedTransport(app_type=app_type), TrackedAdapter(app_type=app_type)
        heard.tell(repr(transport), repr(adapter))
        with httpx.Client(transport=transport) as client, requests.Session() as session:
            session.mount("http://", adapter)
            for url in addresses:
                with suppress(httpx.TransportError):
                    client.get(url, headers=HEADERS)
                with suppress(requests.ConnectionError):
                    session.get(url, headers=HEADERS)

        async def ask() -> None:
            async with (
                aiohttp.ClientSession(trace_configs=[tracked_trace_config(app_type)]) as session,
                httpx.AsyncClient(transport=AsyncTrackedTransport(app_type=app_type)) as client,
            ):
                for url in addresses:
                    with suppress(aiohttp.ClientError, ValueError):  # it takes either credentials or a header
                        async with session.get(url, headers=HEADERS) as response:
                            await response.read()
                    with suppress(httpx.TransportError):
                        await client.get(url, headers=HEADERS)
            bot = Bot(BOT, base_url=f"http://127.0.0.1:{server.port}/bot", request=TrackedRequest())
            with suppress(TelegramError):
                await bot.get_me()

        asyncio.run(ask())
    for one in URLS:
        http_tracking(app_type, one, "GET", 1, 200, 0.1, 1)
    exchange = Exchange(app_type, "GET")
    heard.tell(repr(exchange))


def test_servers_put_no_secret_of_a_request_anywhere(heard: Heard) -> None:
    async def answer(scope: object, receive: object, send: object) -> None:
        raise RuntimeError(PASSWORD)

    def wsgi_answer(environ: object, start_response: object) -> list[bytes]:
        raise RuntimeError(PASSWORD)

    tracked, wsgi_tracked = MetricsMiddleware(answer), WSGIMetricsMiddleware(wsgi_answer)
    heard.tell(repr(tracked), repr(wsgi_tracked))
    for url in URLS:
        path, _, query = url.partition("?")
        headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        scope = {"type": "http", "method": KEY, "path": path, "query_string": query.encode(), "headers": headers}
        with pytest.raises(RuntimeError, match=PASSWORD):
            asyncio.run(tracked(scope, None, None))  # type: ignore[arg-type]
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}
        with pytest.raises(RuntimeError, match=PASSWORD):
            wsgi_tracked({"REQUEST_METHOD": KEY, "PATH_INFO": path, **environ}, lambda *_: None)  # type: ignore[arg-type]
    assert SERVER


def test_actions_that_fail_with_a_secret_put_it_nowhere(heard: Heard) -> None:
    def fail() -> None:
        with action_tracking("menu_handler") as tracker:
            heard.tell(repr(tracker))
            tracker.to_fail(PASSWORD)
            raise RuntimeError(KEY)

    with pytest.raises(RuntimeError, match=KEY):
        fail()


def test_a_metrics_server_puts_no_secret_anywhere(heard: Heard) -> None:
    def ask(server: MetricsServer, url: str = "", **headers: str) -> None:
        request = urllib.request.Request(url or server.url, headers=headers)
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
            heard.tell(answer.headers, answer.read())

    with start_metrics_server(token=BEARER) as server:
        heard.tell(repr(server), server.url)
        for given in (BEARER, f"{BEARER}{PASSWORD}", ""):
            ask(server, Authorization=f"Bearer {given}")
            ask(server, f"{server.url}?token={BEARER}", Authorization=f"Basic {PASSWORD}")
    for wrong in (f"{BEARER} x", f"{BEARER}\n", BEARER.encode()):
        with pytest.raises((ValueError, TypeError)) as caught:
            start_metrics_server(token=wrong)  # type: ignore[arg-type]
        heard.tell(caught.value)
    Path("locked.pem").write_text(
        f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{PASSWORD}\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(OSError, match=r"locked\.pem") as refused:
        start_metrics_server(certfile="locked.pem")
    heard.tell(refused.value)


VARIABLES = {
    "TELEGRAM_BOT_TOKEN": BOT,
    "OPENAI_API_KEY": KEY,
    "DATABASE_URL": f"postgres://shop:{PASSWORD}@db/shop",
    "METRICS_AUTHORIZATION": BEARER,
}


@contextmanager
def pages() -> Iterator[list[str]]:
    """Yield addresses with secrets in them, of pages that show secrets as well."""
    page = f'genapp_action_count_total{{name="{KEY}",status="{BOT}",env="{BEARER}",app="{PASSWORD}"}} 1.0\n'
    with page_server(page) as url:
        credentials = url.replace("http://", f"http://user:{PASSWORD}@")
        yield [url, f"{url}?token={BEARER}", f"{url}/x?key={KEY}", credentials, f"http://127.0.0.1:1/metrics?key={KEY}"]


def test_no_command_shows_a_secret(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**VARIABLES, "PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(name, value)
    Path("token").write_text(BEARER)
    Path("rules.yml").write_text("groups: []\n")
    Path("twice").write_text(f"{BEARER} {BEARER}")

    def run(*arguments: str) -> None:
        answer = CliRunner().invoke(app, [*arguments])
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        heard.tell(*arguments[:1], answer.output.replace("\n", ""))

    with pages() as urls:
        for form in ("text", "json"):
            run("doctor", "--format", form)
            run("doctor", "--format", form, str(os.getpid()))
            for url in urls:
                run("doctor", "--format", form, "--token-file", "token", url)
        run("doctor", "--token-file", "twice", "1")
        for url in urls[1:]:
            for form in ("text", "json", "github"):
                run("check", "--format", form, "--select", "MC9,MC505", url)
            run("check", "--metrics", url, "rules.yml")
    run("monitoring", "export", "out", "--token-file", "token", "--alertmanager", "0.25", "--chat-id", "1")
    run("monitoring", "export", "out", "--token-file", "twice", "--alertmanager", "0.25")
    run("monitoring", "export", "out", "--telegram-api", f"http://user:{PASSWORD}@h")
    run("lint", "--format", "json", ".")


def test_the_doctor_of_a_process_shows_none_of_its_secrets(heard: Heard) -> None:
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    environ = {**os.environ, **VARIABLES, "LLM_COMMON_MAX_SERIES": "many"}
    with subprocess.Popen(
        [sys.executable, "-c", code, f"--token={BEARER}"], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        answer = CliRunner().invoke(app, ["doctor", "--format", "json", str(process.pid)])
        process.communicate()
    assert json.loads(answer.stdout)
    heard.tell(answer.output)
