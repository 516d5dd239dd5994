"""The settings in force, and where each value came from.

:func:`resolve` is a pure function of the arguments of ``configure()``, the environment and a ``pyproject.toml``: it
reads nothing on its own and changes nothing, so that every rule of precedence can be tested with plain data.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_common.catalog import (
    ACTION_DURATION_BUCKETS,
    EXTRA_METRICS,
    FIRST_ITEM_BUCKETS,
    HTTP_DURATION_BUCKETS,
    HTTP_SIZE_BUCKETS,
    Buckets,
)
from llm_common.errors import ConfigurationError, shown

DEFAULT_BACKENDS = ("prometheus",)
TABLE = "tool.llm_common"
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
ALL = "all"
"""Stands for every metric beside the contract."""
LONGEST_LABEL = 1000
"""How many characters of a label's value are kept: the scrape has it on each of the many lines of a series."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved configuration. Immutable; a new ``configure()`` makes a new one."""

    app: str
    """The application's name: the label ``app``."""
    env: str = "dev"
    """Where it runs, usually ``dev``, ``preprod`` or ``prod``: the label ``env``."""
    backends: tuple[object, ...] = DEFAULT_BACKENDS
    """Names of backends, or objects with hook implementations, in the order given."""
    plugins: tuple[object, ...] = ()
    """Names of entry points, or objects with hook implementations, besides the backends."""
    strict: bool = False
    """Whether a tracking fault raises instead of being logged once."""
    action_duration_buckets: tuple[float, ...] = ACTION_DURATION_BUCKETS
    """Upper bounds for ``genapp_action_duration_sec``, ascending, in seconds."""
    http_duration_buckets: tuple[float, ...] = HTTP_DURATION_BUCKETS
    """Upper bounds for ``genapp_http_request_duration_sec``, ascending, in seconds."""
    http_size_buckets: tuple[float, ...] = HTTP_SIZE_BUCKETS
    """Upper bounds for ``genapp_http_request_size_bytes``, ascending, in bytes."""
    first_item_buckets: tuple[float, ...] = FIRST_ITEM_BUCKETS
    """Upper bounds for ``genapp_action_first_item_sec``, ascending, in seconds."""
    extra_metrics: tuple[str, ...] = ()
    """Which metrics beside the contract are recorded: keys of the catalogue's ``EXTRA_METRICS``."""
    max_series: int | None = None
    """How many series a metric may have before new ones go to ``{other}``; ``None`` for the catalogue's limits."""
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """For each setting, where its value came from, in words."""

    def source(self, name: str) -> str:
        """Return where the value of the setting ``name`` came from."""
        return self.sources.get(name, "the default")

    @property
    def buckets(self) -> Buckets:
        """The bounds of all histograms."""
        return Buckets(
            self.action_duration_buckets, self.http_duration_buckets, self.http_size_buckets, self.first_item_buckets
        )


@dataclass(frozen=True, slots=True)
class Pyproject:
    """The table ``[tool.llm_common]`` of one ``pyproject.toml``."""

    path: Path
    table: Mapping[str, Any]


def find_pyproject(directory: Path) -> Pyproject | None:
    """Return the table of the nearest ``pyproject.toml`` at or above ``directory``, or ``None`` where there is none.

    Raises :class:`ConfigurationError` where that file can't be read.
    """
    for parent in (directory, *directory.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            import tomllib  # applications in production have no pyproject.toml, and needn't pay for the import

            try:
                document = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as problem:  # no UTF-8, no TOML, or nested without end
                raise ConfigurationError(f"{path} can't be read: {problem}") from problem
            tool = document.get("tool", {})
            table = tool.get("llm_common") if isinstance(tool, dict) else None
            if table is None:
                return None
            if not isinstance(table, dict):
                raise ConfigurationError(f"[{TABLE}] in {path} is {shown(table)}; it must be a table")
            return Pyproject(path, table)
    return None


def _text(value: object, source: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{source} is {shown(value)}; accepted: a text that isn't empty")
    if not value.strip():
        raise ConfigurationError(f"{source} is {shown(value)}, which is empty; accepted: a text that isn't empty")
    return clean_label(value.strip())


def _names(value: object, source: str) -> tuple[object, ...]:
    try:
        parts: Any = None if isinstance(value, bytes | Mapping) else value
        parts = parts.split(",") if isinstance(parts, str) else [*parts]
    except Exception:  # whatever going through it raises
        raise ConfigurationError(
            f"{source} is {shown(value)}; accepted: names, separated by commas, or a list of names and objects"
        ) from None
    found: list[object] = []
    for part in parts:
        # Names are compared by value, objects by identity: two backends that compare equal are still two.
        if isinstance(part, str):
            name = part.strip().lower()
            known = not name or any(isinstance(one, str) and one == name for one in found)
        else:
            known = any(one is part for one in found)
        if not known:
            found.append(name if isinstance(part, str) else part)
    return tuple(found)


def _strict(value: object, source: str) -> bool:
    if isinstance(value, int) and value in (0, 1):  # False and True as well
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in TRUE + FALSE:
        return value.strip().lower() in TRUE
    raise ConfigurationError(f"{source} is {shown(value)}; accepted: {', '.join(TRUE)} or {', '.join(FALSE)}")


def _buckets(value: object, source: str) -> tuple[float, ...]:
    accepted = "accepted: positive numbers, ascending, separated by commas or as a list"
    parts: Iterable[Any] = value.split(",") if isinstance(value, str) else value  # type: ignore[assignment]
    try:
        bounds = [float(part) for part in parts]
    except Exception:  # whatever going through it, or a conversion to a number, raises
        raise ConfigurationError(f"{source} is {shown(value)}; {accepted}") from None
    if bounds and bounds[-1] == math.inf:
        del bounds[-1]
    ascending = all(low < high for low, high in pairwise(bounds))
    if not bounds or not ascending or not all(0 < bound < math.inf for bound in bounds):
        raise ConfigurationError(f"{source} is {shown(value)}; {accepted}")
    return tuple(bounds)


def _extras(value: object, source: str) -> tuple[str, ...]:
    names = _names(value, source)
    for name in names:
        if not isinstance(name, str) or name not in (*EXTRA_METRICS, ALL):
            raise ConfigurationError(f"{source} has {shown(name)}; accepted: {', '.join((*EXTRA_METRICS, ALL))}")
    return tuple(one for one in EXTRA_METRICS if one in names or ALL in names)


def _limit(value: object, source: str) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{source} is {shown(value)}; accepted: a whole number from 1 on")
    return number


READERS: Mapping[str, Callable[[object, str], Any]] = MappingProxyType(
    {
        "app": _text,
        "env": _text,
        "backends": _names,
        "plugins": _names,
        "strict": _strict,
        "action_duration_buckets": _buckets,
        "http_duration_buckets": _buckets,
        "http_size_buckets": _buckets,
        "first_item_buckets": _buckets,
        "extra_metrics": _extras,
        "max_series": _limit,
    }
)
"""Every setting, with what turns a raw value and the name of its source into a checked one."""


TABLES_OF_TOOLS = ("lint", "monitoring")
"""Tables inside of ours that a command reads: ``llm-common lint`` and ``llm-common monitoring``."""


def _check_keys(pyproject: Pyproject) -> None:
    for key in pyproject.table:
        if key not in READERS and key not in TABLES_OF_TOOLS:
            import difflib

            close = difflib.get_close_matches(key, READERS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"[{TABLE}] in {pyproject.path} has an unknown setting {shown(key)}{hint} "
                f"(accepted: {', '.join(READERS)})"
            )


def environment_variable(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return f"LLM_COMMON_{name.upper()}"


def resolve(
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    pyproject: Pyproject | None = None,
    main_module: str = "python",
) -> Settings:
    """Return the settings that follow from the arguments of ``configure()``, the environment and a ``pyproject.toml``.

    Precedence: ``overrides`` (where not ``None``), ``environ`` (an empty variable counts as unset, as OpenTelemetry
    has it), ``pyproject``, defaults. ``app`` falls back to ``OTEL_SERVICE_NAME``, then to ``main_module``.

    Raises :class:`ConfigurationError` for a value that can't be read or a setting that doesn't exist.
    """
    if pyproject:
        _check_keys(pyproject)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, read in READERS.items():
        variable = environment_variable(name)
        if overrides.get(name) is not None:
            raw, source = overrides[name], f"the argument {name}= of configure()"
        elif environ.get(variable):
            raw, source = environ[variable], f"the environment variable {variable}"
        elif pyproject and name in pyproject.table:
            raw, source = pyproject.table[name], f"{name} in [{TABLE}] of {pyproject.path}"
        elif name == "app" and environ.get("OTEL_SERVICE_NAME"):
            raw, source = environ["OTEL_SERVICE_NAME"], "the environment variable OTEL_SERVICE_NAME"
        elif name == "app":
            raw, source = main_module, "the main module's name"
        else:
            continue
        values[name] = read(raw, source)
        sources[name] = source
        if name == "backends" and not values[name]:
            raise ConfigurationError(
                f"{source} is {shown(raw)}, which names no backend; "
                "accepted: names such as prometheus or memory; noop switches metrics off"
            )
    return Settings(**values, sources=MappingProxyType(sources))


def wants_strict(environ: Mapping[str, str]) -> bool:
    """Return whether the environment asks for strict mode, without complaint about what can't be read."""
    return environ.get(environment_variable("strict"), "").strip().lower() in TRUE


def main_module_name(main: object) -> str:
    """Return a name for the application from its ``__main__`` module: its dotted name, or its file's stem."""
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    return (Path(path).stem if path else "") or "python"


def clean_label(text: str) -> str:
    """Return ``text`` as a label's value: valid Unicode, and not too long.

    Each lone surrogate, which no exposition format can carry, becomes U+FFFD; what is past the limit becomes ``…``.
    """
    if len(text) > LONGEST_LABEL:
        text = text[: LONGEST_LABEL - 1] + "…"
    # The interpreter knows utf-16 by itself, and has no need to look for a codec, which it may not find where it ends.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
