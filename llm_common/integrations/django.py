"""The metrics as a view of a Django project. :mod:`llm_common.integrations.wsgi` counts its requests."""

from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]

from llm_common.exposition import respond


def metrics_view(request: HttpRequest) -> HttpResponse:
    """Answer a request for the metrics: ``urlpatterns = [path("metrics", metrics_view)]``."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    answer = respond(request.method, request.META.get("QUERY_STRING", ""), headers, None)
    return HttpResponse(answer.body, status=answer.status.value, headers=dict(answer.headers))
