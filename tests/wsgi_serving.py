"""WSGI applications on real servers: werkzeug's in a thread of this process, gunicorn in one of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from wsgiref.types import WSGIApplication

from werkzeug.serving import WSGIRequestHandler, make_server


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass


@contextmanager
def werkzeug_server(app: WSGIApplication) -> Iterator[tuple[str, int]]:
    """Serve an application with a thread for each connection; yield host and port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    server.log = lambda *_: None  # type: ignore[method-assign]
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield "127.0.0.1", server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gunicorn_server(source: str, directory: Path, workers: int = 1) -> Iterator[tuple[str, int]]:
    """Serve ``application`` of a module with this source text; yield host and port.

    A worker has recorded a request before it takes the next.
    """
    (directory / "served.py").write_text(source, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind=127.0.0.1:0",
        f"--workers={workers}",
        "served:application",
    ]
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        try:
            for line in process.stderr:
                told += line
                if found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
                    yield "127.0.0.1", int(found[1])
                    break
            else:
                raise AssertionError(told)
        finally:
            process.terminate()
            process.stderr.read()
