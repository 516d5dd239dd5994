"""Which route a request took, in Flask and in Django.

No framework is imported for that: what names a route is found where the framework left it, if it is loaded at all.
"""

import re
import sys
from functools import lru_cache
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from wsgiref.types import WSGIEnvironment

MOST_WRAPPERS = 16
"""Through how many middlewares a Flask application is looked for."""


def flask_template(app: Any, environ: WSGIEnvironment) -> str | None:
    """Return the template of the route that a Flask application took, or ``None``.

    Also where the method or the slash at the path's end was wrong. ``app`` is what the middleware calls.
    """
    request = environ.get("werkzeug.request")
    if request is not None:
        rule = getattr(request, "url_rule", None)
        if rule is not None:
            return str(rule.rule)
        problem = getattr(request, "routing_exception", None)
        if problem is None:
            return None
        return _corrected(sys.modules["flask"].current_app.create_url_adapter(request), problem)
    application = _flask_application(app)  # an exception left it, and its request is forgotten
    if application is None:
        return None
    adapter = application.create_url_adapter(application.request_class(dict(environ)))
    try:
        return str(adapter.match(return_rule=True)[0].rule)
    except Exception as problem:
        return _corrected(adapter, problem)


def _corrected(adapter: Any, problem: Exception) -> str | None:
    """Return the template that matches where what caused ``problem``, of werkzeug's kind, is mended."""
    mended: dict[str, Any]
    if getattr(problem, "valid_methods", None):
        mended = {"method": problem.valid_methods[0]}  # type: ignore[attr-defined]
    elif getattr(problem, "new_url", None):
        path = unquote(urlsplit(problem.new_url).path)  # type: ignore[attr-defined]
        mended = {"path_info": path.removeprefix(adapter.script_name.rstrip("/"))}
    else:
        return None
    try:
        return str(adapter.match(return_rule=True, **mended)[0].rule)
    except Exception:  # a redirection to elsewhere
        return None


def _flask_application(app: Any) -> Any:
    for _ in range(MOST_WRAPPERS):
        owner = getattr(app, "__self__", app)
        if hasattr(owner, "create_url_adapter"):
            return owner
        app = getattr(app, "app", None)
    return None


class DjangoMark:
    """Tells whether Django handles a request that is passed on in a ``with`` block.

    It notes the URL configuration of a request when it begins to handle it, and forgets it when the response is closed;
    where one isn't, the note is left for the thread's next request. So it is taken away before, and put back where
    Django had nothing to do with the request.
    """

    def __enter__(self) -> Self:
        urls = sys.modules.get("django.urls")
        self._get = getattr(urls, "get_urlconf", None)  # a module that is being imported has none yet
        self._before = self._get() if self._get else None
        if self._before is not None:
            sys.modules["django.urls"].set_urlconf(None)
        return self

    @property
    def is_set(self) -> bool:
        """Whether Django has begun to handle the request."""
        return self._get is not None and self._get() is not None

    def __exit__(self, *_: object) -> None:
        if self._before is not None and not self.is_set:
            sys.modules["django.urls"].set_urlconf(self._before)


def django_template(environ: WSGIEnvironment, *, redirected: bool) -> str | None:
    """Return the template of the route that Django takes for the request that it is handling, or ``None``.

    ``redirected`` says that the response sends the client elsewhere, maybe to the same path with a slash at its end.
    """
    urls = sys.modules["django.urls"]
    path = environ.get("PATH_INFO") or "/"
    for candidate in (path, f"{path}/") if redirected else (path,):
        try:
            return django_route(urls.resolve(candidate, urls.get_urlconf()).route)
        except urls.Resolver404:
            pass
    return None


_SIGNS = re.compile(
    r"\\(?P<escaped>.)"
    r"|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\]|\.(?=[*+{]))"
    r"|\(\?P<(?P<named>\w+)>"
    r"|(?P<flags>\(\?[aiLmsux]+\))"
    r"|(?P<invisible>\((?:\?<?[=!]|\?\#|\?P=))"
    r"|(?P<plain>\(\?[aiLmsux-]*[:>])"
    r"|(?P<unnamed>\()"
    r"|(?P<end>\))"
    r"|(?P<parameter><[^<>]*>)"
    r"|(?P<nothing>[\^$?*+]|\{[0-9,]*\})"
    r"|(?P<character>.)",
    re.DOTALL,
)


@lru_cache(maxsize=4096)
def django_route(route: str) -> str:
    """Return a route of Django as a template: without what a regular expression has besides names and plain text.

    ``^articles/(?P<year>[0-9]{4})/$`` is ``articles/{year}/``. What varies and has no name is ``{arg}``; what may be
    left out stays.
    """
    if not any(sign in route for sign in "^$([\\*+?"):
        return route
    found: list[str] = []
    depth, hidden = 0, 0  # how many groups are open, and which of them hides what is in it
    for sign in _SIGNS.finditer(route):
        kind = sign.lastgroup
        text = sign[0]
        if kind in {"named", "unnamed", "invisible", "plain"}:
            depth += 1
            if not hidden and kind != "plain":
                hidden = depth
                if kind != "invisible":
                    found.append(f"{{{sign['named'] or 'arg'}}}")
        elif kind == "end":
            hidden = 0 if hidden == depth else hidden
            depth -= 1
        elif hidden or kind in {"flags", "nothing"}:
            continue
        elif kind == "set" or (kind == "escaped" and sign["escaped"] in "dDwWsS"):
            found.append("{arg}")
        elif kind == "escaped":
            found.append("" if sign["escaped"] in "AbBzZ" else sign["escaped"])
        else:
            found.append(text)
    return re.sub(r"(?:\{arg\})+", "{arg}", "".join(found))
