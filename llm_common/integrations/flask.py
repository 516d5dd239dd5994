"""The metrics as a view of a Flask application. :mod:`llm_common.integrations.wsgi` counts its requests."""

from collections.abc import Generator
from typing import Any, Self

import flask

from llm_common.exposition import respond


class MetricsResponse(flask.Response):
    """The scrape. It may also be awaited: in the older package the view was a coroutine, and some code awaits it."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


def flask_endpoint_for_prometheus() -> MetricsResponse:
    """Answer a request for the metrics: ``app.route("/metrics")(flask_endpoint_for_prometheus)``."""
    request = flask.request
    headers = {name.lower(): value for name, value in request.headers}
    answer = respond(request.method, request.query_string.decode("latin-1"), headers, None)
    response = MetricsResponse(answer.body, answer.status.value)
    for name, value in answer.headers:
        response.headers[name] = value  # now, since a body sets its own length, which isn't that of an answer to HEAD
    return response
