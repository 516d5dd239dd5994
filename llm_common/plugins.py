"""Finding backends and plugins by name, and only those that the settings name.

Built-in backends are modules of this package; all others are entry points of the group ``llm_common`` in whatever
distribution brings them. Nothing is imported until it is named.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from llm_common.errors import PluginError, UnknownBackendError

GROUP = "llm_common"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "memory": "llm_common.backends.memory",
        "noop": "llm_common.backends.noop",
        "prometheus": "llm_common.backends.prometheus",
    }
)
"""The backends that this package brings, with their modules."""

SEPARATE: Mapping[str, str] = MappingProxyType(
    {"aioprometheus": "llm-common-aioprometheus", "opentelemetry": "llm-common-opentelemetry"}
)
"""Backends and plugins that are known to exist, with the distribution to install."""


def load(name: str, role: str, source: str) -> object:
    """Return the object registered as ``name``, imported now.

    ``role`` (``backend`` or ``plugin``) and ``source`` (where the name was written) serve the error messages.
    Raises :class:`UnknownBackendError` where there is none and :class:`PluginError` where it can't be imported.
    """
    if role == "backend" and name in BUILT_IN:
        return import_module(BUILT_IN[name])
    from importlib.metadata import entry_points  # slow to import, and most applications never need it

    found = {point.name.lower(): point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UnknownBackendError(_unknown(name, role, source, sorted(found)))
    point = found[name]
    try:
        return point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a script without a guard leaves by SystemExit
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"
        raise PluginError(
            f"the {role} {name!r} ({source}) can't be loaded: its entry point {point.value!r} in {origin} failed with "
            f"{type(problem).__name__}: {problem}. Reinstall or upgrade that distribution, or take {name!r} out."
        ) from problem


def _unknown(name: str, role: str, source: str, installed: list[str]) -> str:
    import difflib

    available = sorted({*installed, *(BUILT_IN if role == "backend" else ())})
    parts = [f"unknown {role} {name!r}, named by {source}."]
    close = difflib.get_close_matches(name, available) if name not in SEPARATE else []
    if close:
        parts.append(f"Did you mean {close[0]!r}?")
    parts.append(f"Available: {', '.join(available) or 'none'}.")
    if name in SEPARATE:
        parts.append(f"Install it with: pip install {SEPARATE[name]}.")
    if role == "backend":
        if name not in SEPARATE:
            others = [f"{other} (pip install {SEPARATE[other]})" for other in SEPARATE if other not in installed]
            parts += [f"Can be installed: {', '.join(others)}."] if others else []
        parts.append("noop switches metrics off.")
    return " ".join(parts)
