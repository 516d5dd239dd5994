"""Pages with anything on them, on real servers; and results by code."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from llm_common.doctor.run import Result

HEALTHY = (
    "# TYPE genapp_action_count_total counter\n"
    'genapp_action_count_total{name="menu_handler",status="ok",env="prod",app="shop_bot"} 1.0\n'
)


@contextmanager
def page_server(
    text: str | Callable[[], str] = HEALTHY, *, date: Callable[[], float | None] = time.time, token: str = ""
) -> Iterator[str]:
    """Serve a page at /metrics; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/metrics")
            allowed = not token or self.headers.get("Authorization") == f"Bearer {token}"
            try:
                body = (text if isinstance(text, str) else text()).encode() if found and allowed else b""
            except ConnectionError:
                return
            self.send_response_only(200 if found and allowed else 401 if found else 404)
            if (told := date()) is not None:
                self.send_header("Date", self.date_time_string(told))
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wrong(results: Iterable[Result]) -> dict[str, str]:
    """Return the messages by code of what isn't right."""
    return {one.code: one.message for one in results if one.severity != "ok"}


def right(results: Iterable[Result]) -> set[str]:
    """Return the codes of what is right."""
    return {one.code for one in results if one.severity == "ok"}
