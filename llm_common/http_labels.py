"""The one policy for the labels of HTTP metrics: how a method, a status and a resource are written.

Everything that records HTTP goes through here, so that the same exchange has the same labels whoever saw it. Nothing
that a client can choose freely reaches a label unchanged, and no secret does.
"""

import re
from functools import lru_cache
from urllib.parse import unquote

from llm_common.errors import shown

SERVER = "app_api"
"""The ``app_type`` of requests that the application serves."""

TELEGRAM = "telegram_api"
"""The ``app_type`` of requests to Telegram, whose paths have the bot's token in them."""

UNKNOWN = "{unknown}"
"""The resource of a request that no route matched."""

OTHER_METHOD = "_OTHER"
"""Stands for a method that the HTTP standards don't define, as in OpenTelemetry's conventions."""

ERROR, TIMEOUT, CANCELLED = "error", "timeout", "cancelled"
"""The statuses of an exchange without a response."""

CLIENT_GONE = "499"
"""The status of a request whose client went away before the response was complete; nginx's number."""

UNHANDLED = "500"
"""The status of a request that was left by an exception, or without a complete response."""

METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"},
)
"""RFC 9110, section 9, with PATCH (RFC 5789) and QUERY; extensions such as WebDAV's are left out."""

LONG = "{long}"
"""The resource of a path that is too long to be one."""

FILE = "file/{path}"
"""The resource of a file that is downloaded from Telegram."""

MAX_RESOURCE = 200
"""Paths that are longer than this after cleaning, in characters, are no resource that anyone would look for."""


def checked_app_type(app_type: str) -> str:
    """Return ``app_type``; raise :class:`TypeError` or :class:`ValueError` where it names nothing."""
    expected = (
        'name what the requests are sent to: "llm", "telegram_api", "triton", or a service\'s name with "_api"; '
        '"app_api" is for those that are served'
    )
    if not isinstance(app_type, str):
        raise TypeError(f"app_type must be a string, not {shown(app_type)}; {expected}")
    if not app_type:
        raise ValueError(f"app_type is empty; {expected}")
    return app_type


def method_label(method: str) -> str:
    """Return a request's method in upper case, or ``_OTHER`` for one that the HTTP standards don't define."""
    if method in METHODS:
        return method
    upper = method.upper()
    return upper if upper in METHODS else OTHER_METHOD


_CODES = {code: str(code) for code in range(100, 1000)}


def status_label(status: object) -> str:
    """Return a status code as three digits; ``error``, ``timeout`` and ``cancelled`` stay; all else is ``error``."""
    if isinstance(status, int):
        return _CODES.get(status, ERROR)
    if isinstance(status, str) and (status in {TIMEOUT, CANCELLED} or re.fullmatch(r"[1-9][0-9]{2}", status)):
        return str(status)
    return ERROR


def failure_label(exception: BaseException) -> str:
    """Return the status of a request that was sent and left by ``exception``: ``timeout``, ``cancelled`` or ``error``.

    Libraries have timeouts of their own, which need not derive from :class:`TimeoutError`; all have it in their name.
    """
    if not isinstance(exception, Exception):  # asyncio.CancelledError is none
        return CANCELLED
    names = [kind.__name__ for kind in type(exception).__mro__]
    if "NewConnectionError" in names:  # urllib3: refused or unknown host; derives from a timeout for old callers' sake
        return ERROR
    return TIMEOUT if any("Timeout" in name for name in names) else ERROR


# Possessive, so that no template takes more time than its length.
_PARAMETER = re.compile(
    r"\{(?P<braces>\w++)[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}"  # Starlette {name:int}, aiohttp {name:\d{4}}
    r"|<(?:[^<>]*:)?(?P<angles>\w+)>"  # Flask and Django <int:name>
)


@lru_cache(maxsize=4096)
def template_label(template: str) -> str:
    """Return a route's template as a resource: without outer slashes, each parameter as ``{name}``; ``/`` for none.

    Converters and patterns of parameters are left out: ``/items/{item_id:int}/`` and ``/items/<int:item_id>`` are both
    ``items/{item_id}``. Kept in a cache, since an application has so many templates and no more.
    """
    named = _PARAMETER.sub(lambda found: f"{{{found['braces'] or found['angles']}}}", template)
    return re.sub(r"/{2,}", "/", named).strip("/") or "/"


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_BARE = re.compile(r"(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])", re.IGNORECASE)
_NUMBER = re.compile(r"^[0-9]+|[0-9]{2,}")
_OPAQUE = re.compile(r"(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{16,}", re.IGNORECASE)
_KEY = re.compile(r"(?:sk|pk|rk|xox[a-z]|gh[a-z]|glpat|hf)[-_][\w-]{12,}", re.IGNORECASE)
"""How the keys of well-known services begin."""
_BOT = re.compile(r"bot(?=[^:]*:)(?=.*\d)", re.IGNORECASE | re.DOTALL)
_BARE_TOKEN = re.compile(r"\d{5,}:[\w-]{8,}")
"""A bot's token without the word before it."""
_NO_NAME = re.compile(r"[/\\=&@;?#%]|://")
"""What isn't in a name of a resource, but in addresses, credentials and parameters."""
_TELEGRAM_METHOD = re.compile(r"(?!bot)[a-z]{2,64}", re.IGNORECASE)
_SCHEME_AND_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)


def path_label(path: str, app_type: str = "") -> str:
    """Return the path of a request that was sent as a resource, where no template says what varies in it.

    Each UUID becomes ``{uuid}``, each number ``{int}`` (a segment's leading digits, and two digits or more anywhere),
    and a long run of mixed letters and digits, as keys and identifiers have it, makes its segment ``{token}``. Scheme,
    host, credentials, parameters behind ``;``, query and fragment are left out, and so is a Telegram bot's token:
    ``/bot<token>/sendMessage`` is ``sendMessage``.
    """
    host = _SCHEME_AND_HOST.match(path)  # at the beginning alone: a search would take the square of a path's length
    bare = re.split(r"[?#]", path[host.end() :] if host else path, maxsplit=1)[0]
    segments = [_unquoted(segment).split(";", 1)[0] for segment in bare.split("/")]
    segments = [segment for segment in segments if segment.strip()]
    if app_type == TELEGRAM:
        return _telegram_label(segments)
    kept: list[str] = []
    key_follows = False
    for segment in segments:
        if key_follows:
            key_follows = False
        elif _BOT.match(segment.strip()):
            if kept == ["file"]:  # a download; each file has a path of its own
                return FILE
            kept.clear()
        elif segment.strip().casefold() == "eapi":  # a gateway that has the key in the path: eapi/<key>/sendMessage
            key_follows = True
        else:
            kept.append(_segment_label(segment))
    label = "/".join(kept) or "/"
    return label if len(label) <= MAX_RESOURCE else LONG


def _telegram_label(segments: list[str]) -> str:
    """Return the method that is called; everything before it may be the token, in whatever spelling."""
    if not segments:
        return "/"
    if segments[0] == "file":
        return FILE
    return segments[-1] if _TELEGRAM_METHOD.fullmatch(segments[-1]) else "{token}"


def _unquoted(segment: str) -> str:
    for _ in range(3):  # what is quoted several times is unquoted so often, for a secret may hide there
        plain = unquote(segment)
        if plain == segment:
            break
        segment = plain
    return segment


def _segment_label(plain: str) -> str:
    if len(plain) > MAX_RESOURCE or not plain.isprintable() or _NO_NAME.search(plain):
        return "{token}"
    if _BOT.search(plain) or _BARE_TOKEN.search(plain) or _KEY.match(plain):
        return "{token}"
    parts = _UUID_BARE.sub("{uuid}", _UUID.sub("{uuid}", plain)).split("{uuid}")
    if any(_OPAQUE.search(part) for part in parts):
        return "{token}"
    return "{uuid}".join(_NUMBER.sub("{int}", part) for part in parts)
