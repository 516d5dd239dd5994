"""Which requests a server doesn't count: those of monitoring, of health checks and of generated documentation."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

DEFAULT_EXCLUDE = (
    *("/metrics", "/prometheus", "/manage/prometheus"),
    *("/health", "/healthz", "/livez", "/readyz", "/live", "/ready", "/ping", "/manage/health"),
    *("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/schema", "/schema/openapi.json", "/favicon.ico"),
)
"""The paths that no server counts by default."""


def excluder(exclude: str | Iterable[str] = DEFAULT_EXCLUDE) -> Callable[[str], bool]:
    """Return a function that says whether a path is excluded.

    ``exclude`` is a path or some, compared whole and without outer slashes; ``*`` stands for any characters, slashes
    included, and ``?`` and ``[…]`` as in :mod:`fnmatch`. The empty tuple excludes nothing.

    Raises :class:`TypeError` where an entry isn't a string.
    """
    given: object = exclude
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"exclude is {exclude!r:.100}; accepted: a path such as '/metrics', or several; () excludes nothing"
        )
    patterns = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"exclude has {pattern!r:.100}; accepted: paths such as '/metrics', or patterns: '/admin/*'"
            )
    bare = {pattern.strip("/") for pattern in patterns}
    globs = tuple(pattern for pattern in bare if any(character in pattern for character in "*?["))
    plain = frozenset(bare.difference(globs))

    def excluded(path: str) -> bool:
        stripped = path.strip("/")
        if stripped in plain:
            return True
        for pattern in globs:  # noqa: SIM110 - a generator would cost every request more than all the rest
            if fnmatchcase(stripped, pattern):
                return True
        return False

    return excluded
