"""A small server for the metrics, for applications that have no web server of their own. It knows tokens and TLS."""

import hmac
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import EINVAL
from http import HTTPStatus
from math import inf
from socketserver import TCPServer, ThreadingMixIn
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry

from llm_common.exposition import WSGIApp, metrics_wsgi_app, plain

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("llm_common")

MOST_CLIENTS = 32
"""How many clients the metrics server has at a time, each in a thread. Further ones wait until it is their turn."""

CLIENT_TIMEOUT = 30.0
"""How long, in seconds, a client may take to send its request, and as long again to take the answer."""

PATIENCE = 1.0
"""The same where there are :data:`MOST_CLIENTS` and others wait."""

CLIENT = "llm_common.client"
"""Where the environ of a request has the client's socket."""


def guarded(app: WSGIApp, token: str) -> WSGIApp:
    """Return ``app`` for those alone who know the ``token``, as a bearer token (RFC 6750, section 2.1)."""
    expected = f"Bearer {token}".encode()

    def ask_for_token(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given = f"{scheme.capitalize()} {credentials.strip()}".encode("latin-1", "replace")
        if hmac.compare_digest(given, expected):  # takes as long for a token that is nearly right
            return app(environ, start_response)
        refusal = plain(HTTPStatus.UNAUTHORIZED, "a bearer token is needed\n", ("WWW-Authenticate", "Bearer"))
        start_response(f"{refusal.status.value} {refusal.status.phrase}", list(refusal.headers))
        return [refusal.body]

    return ask_for_token


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), CLIENT: self.request}

    def log_message(self, *_: object) -> None:
        """Log nothing: it would have what the client sent, which may be a secret in the wrong place."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    tls: "SSLContext | None" = None

    def __init__(self, *args: Any) -> None:
        self.clients: dict[socket.socket, float] = {}
        """Since when each client keeps its thread waiting; infinite while its answer is being made."""
        self.left = Event()
        """Set when one of them has left."""
        self.closing = False
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        while len(self.clients) >= MOST_CLIENTS and not self.closing:
            self.let_go(PATIENCE)
            self.left.wait(0.05)
            self.left.clear()
        self.clients[request] = monotonic()
        super().process_request(request, client_address)

    def get_app(self) -> WSGIApp:
        app = cast("WSGIApp", super().get_app())

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            client = environ[CLIENT]
            self.clients[client] = inf
            try:
                return app(environ, start_response)
            finally:
                self.clients[client] = monotonic()
                if self.closing:  # nobody lets go of it any more
                    self.let_go(-inf)

        return answer

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.clients.pop(request, None)
        self.left.set()

    def service_actions(self) -> None:
        self.let_go(CLIENT_TIMEOUT)

    def let_go(self, patience: float) -> None:
        """Cut off the clients that have kept their threads waiting for longer than this, in seconds."""
        for client, since in list(self.clients.items()):
            if monotonic() - since > patience:
                with suppress(OSError):  # it has left just now
                    socket.socket.shutdown(client, socket.SHUT_RDWR)  # of TLS's own, another thread may be in it

    def get_request(self) -> tuple[Any, Any]:
        request, address = super().get_request()
        if self.tls is not None:
            # The handshake waits for the thread of the client: one that is silent mustn't keep the others waiting.
            request = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, address

    def handle_error(self, *_: object) -> None:
        logger.debug("a client of the metrics server went away", exc_info=sys.exc_info())

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look up the host's name, which can take seconds
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class MetricsServer:
    """A running metrics server. Close it with :meth:`close` or by using it in a ``with`` statement."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        # The interval bounds how long close() takes; asking twenty times a second costs nothing.
        self._thread = Thread(target=server.serve_forever, args=(0.05,), name="llm_common metrics server", daemon=True)
        self._thread.start()

    @property
    def addr(self) -> str:
        """The address it listens on."""
        return str(self._server.server_address[0])

    @property
    def port(self) -> int:
        """The port it listens on, also where any free one was asked for."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where to scrape it."""
        host = f"[{self.addr}]" if ":" in self.addr else self.addr
        scheme = "https" if self._server.tls else "http"
        return f"{scheme}://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening, and let go of all clients. May be called more than once."""
        if self._thread.is_alive():  # which it isn't in a forked child, whose parent has the clients
            self._server.closing = True
            self._server.shutdown()
            self._thread.join()
            self._server.let_go(-inf)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"


def start_metrics_server(
    port: int = 0,
    addr: str = "127.0.0.1",
    *,
    registry: CollectorRegistry | None = None,
    token: str | None = None,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
) -> MetricsServer:
    """Serve the metrics from a daemon thread, for applications that have no web server of their own.

    ``port`` 0 takes any free one, which the result's ``.port`` tells. ``addr`` is the interface: this machine alone by
    default; ``"0.0.0.0"`` or ``"::"`` lets a Prometheus on another machine, or outside the container, scrape it.

    With ``token``, only requests that have it as a bearer token are answered. With ``certfile``, a certificate chain in
    PEM, it speaks TLS 1.2 or newer; ``keyfile`` has the key, if that isn't in the same file.

    Raises :class:`OSError` that names what can't be had: address and port, or the files of the certificate; and
    :class:`ValueError` for a token that no header can carry, or a key without a certificate.
    """
    if port not in range(65536):
        raise OSError(EINVAL, f"the metrics server can't listen on port {port!r}; accepted: 0 (any free one) to 65535")
    app = metrics_wsgi_app(registry)
    if token is not None:
        app = guarded(app, checked_token(token))
    tls = tls_context(certfile, keyfile)
    try:
        family, _, _, _, address = socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM)[0]
        server_class: type[_Server] = type("_FamilyServer", (_Server,), {"address_family": family, "tls": tls})
        server = make_server(str(address[0]), port, app, server_class, _Handler)
    except OSError as problem:
        why = problem.strerror or problem
        raise OSError(
            problem.errno, f"the metrics server can't listen on {addr!r}, port {port}: {why}; port 0 takes any free one"
        ) from problem
    started = MetricsServer(server)
    logger.info("metrics are served at %s", started.url)
    return started


def checked_token(token: str) -> str:
    """Return a bearer token; raise an error, without the token in it, where no request could carry it."""
    accepted = "accepted: letters, digits and -._~+/ with = at the end (RFC 6750, section 2.1)"
    if not isinstance(token, str):
        raise TypeError(f"the token of the metrics server is no text; {accepted}")
    if not re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", token):
        problem = "is empty" if not token else "has other characters, or a line break at its end"
        raise ValueError(f"the token of the metrics server {problem}; {accepted}")
    return token


def tls_context(certfile: str | os.PathLike[str] | None, keyfile: str | os.PathLike[str] | None) -> "SSLContext | None":
    """Return what a server with this certificate needs, or ``None`` without one."""
    if certfile is None:
        if keyfile is not None:
            raise ValueError("keyfile needs certfile, the certificate that the key belongs to")
        return None
    from ssl import Purpose, create_default_context

    context = create_default_context(Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile, password=no_password)
    except OSError as problem:  # SSLError is one
        files = " and ".join(repr(os.fspath(one)) for one in (certfile, keyfile) if one is not None)
        raise OSError(
            problem.errno, f"the metrics server can't use the certificate in {files}: {problem.strerror or problem}"
        ) from problem
    return context


def no_password() -> str:
    """Answer OpenSSL's question for the password of a key, which it would ask on the terminal otherwise."""
    return ""
