"""The options of an export: ``[tool.llm_common.monitoring]`` in ``pyproject.toml``, and the command line before it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, TypeVar

from llm_common.errors import ConfigurationError
from llm_common.monitoring.options import Objectives, Options, Target, Thresholds
from llm_common.reporting.rules import hint
from llm_common.settings import Pyproject

TABLE = "tool.llm_common.monitoring"

Numbers = TypeVar("Numbers", Thresholds, Objectives)


def configured(pyproject: Pyproject | None, given: Mapping[str, object]) -> Options:
    """Return the options that a ``pyproject.toml`` and ``given``, from the command line, make.

    A value that is given goes before that of the file; of ``thresholds`` and ``objectives``, each number by itself.
    Empty ones count as not given. Raises :class:`ConfigurationError` for what can't be read, doesn't exist, or doesn't
    go together.
    """
    table: Any = pyproject.table.get("monitoring", {}) if pyproject else {}
    path = pyproject.path if pyproject else "pyproject.toml"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"[{TABLE}] in {path} is {table!r}; it must be a table")
    for key in table:
        if key not in READERS:
            raise ConfigurationError(
                f"[{TABLE}] in {path} has an unknown setting {key!r}{hint(key, READERS)} "
                f"(accepted: {', '.join(READERS)})"
            )
    values: dict[str, Any] = {}
    for name, read in READERS.items():
        sources = [(f"{name} in [{TABLE}] of {path}", table.get(name))]
        sources += [(f"the option --{OPTION_NAMES.get(name, name.replace('_', '-'))}", given.get(name))]
        for source, value in sources:
            if value not in (None, (), [], ""):
                values[name] = read(value, source, values.get(name))
    options = Options(**values)
    if options.reads_token_file and not options.token_file.startswith("/"):
        raise ConfigurationError(
            f"token_file is {options.token_file!r}, which Alertmanager would look for in its own folder; accepted: the "
            "whole path, such as /etc/telegram_token"
        )
    return options


def _targets(value: object, source: str, before: object) -> tuple[Target, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ConfigurationError(f'{source} is {value!r}; accepted: a list such as ["shop:8000,app=shop_bot,env=prod"]')
    return tuple(_target(one, source) for one in value)


def _target(text: str, source: str) -> Target:
    address, *labels = (part.strip() for part in text.split(","))
    pairs = [tuple(one.split("=", 1)) for one in labels]
    if not re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):[0-9]{1,5}", address) or not all(
        len(pair) == 2 and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", pair[0]) and _is_text(pair[1]) for pair in pairs
    ):
        raise ConfigurationError(
            f"{source} has {text!r}; accepted: host:port, then labels of the target if any, "
            "as in shop:8000,app=shop_bot,env=prod"
        )
    return Target(address, tuple((name, value) for name, value in pairs))


def _numbers(kind: type[Numbers]) -> Callable[[object, str, Any], Numbers]:
    known = {one.name: one.default for one in fields(kind)}

    def read(value: object, source: str, before: Numbers | None) -> Numbers:
        numbers = {name: getattr(before, name) for name in known} if before else {}
        for name, number in _pairs(value, source, "names with numbers, such as action_error_share=0.1"):
            if name not in known:
                raise ConfigurationError(
                    f"{source} names {name!r}, which doesn't exist{hint(name, known)} (accepted: {', '.join(known)})"
                )
            try:
                numbers[name] = _number(number)
            except (TypeError, ValueError, OverflowError):
                raise ConfigurationError(f"{source} has {name}={number!r}; accepted: a number") from None
        try:
            return kind(**numbers)
        except ConfigurationError as problem:
            raise ConfigurationError(f"{source}: {problem}") from None

    return read


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return float(value)


def _is_text(value: str) -> bool:
    return bool(value) and value.isprintable()  # half a surrogate pair, as of an argument that isn't UTF-8, isn't


def _pairs(value: object, source: str, accepted: str) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(str(name), number) for name, number in value.items()]
    if isinstance(value, list | tuple) and all(isinstance(one, str) and "=" in one for one in value):
        return [(name.strip(), number.strip()) for name, number in (one.split("=", 1) for one in value)]
    raise ConfigurationError(f"{source} is {value!r}; accepted: {accepted}")


def _chat_id(value: object, source: str, before: object) -> int:
    # Telegram's numbers have up to 52 bits; Alertmanager takes 0 for none.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | str)
        or not re.fullmatch(r"-?[1-9][0-9]{,15}", str(value))
    ):
        raise ConfigurationError(
            f"{source} is {value!r}; accepted: the number of a chat, which is negative for a group"
        )
    return int(value)


def _chats(value: object, source: str, before: object) -> tuple[tuple[str, int], ...]:
    pairs = _pairs(value, source, "names of applications with chats, such as shop_bot=-100123")
    if not all(_is_text(app) for app, _ in pairs):
        raise ConfigurationError(f"{source} is {value!r}; accepted: names of applications with chats")
    return tuple({app: _chat_id(chat, source, None) for app, chat in pairs}.items())


def _token_file(value: object, source: str, before: object) -> str:
    if not isinstance(value, str) or not _is_text(value):
        raise ConfigurationError(f"{source} is {value!r}; accepted: the path of a file")
    return value


def _version(value: object, source: str, before: object) -> tuple[int, int]:
    found = re.fullmatch(r"v?([0-9]+)\.([0-9]+)(?:\.[0-9]+.*)?", str(value))
    if isinstance(value, bool | float) or not found or (int(found[1]), int(found[2])) < (0, 24):
        raise ConfigurationError(
            f'{source} is {value!r}; accepted: a version as text, such as "0.28"; Telegram is known since 0.24'
        )
    return int(found[1]), int(found[2])


def _url(value: object, source: str, before: object) -> str:
    # It becomes part of a template in rules, where braces mean something else.
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-.0-z|~][!-z|~]*", value):
        raise ConfigurationError(f"{source} is {value!r}; accepted: an address such as https://docs.example.org")
    if "@" in value.split("/")[2]:  # which everybody could read who reads the configuration, and its differences
        raise ConfigurationError(f"{source} has credentials in it; leave them out")
    return value.rstrip("/")


def _flag(value: object, source: str, before: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{source} is {value!r}; accepted: true or false")
    return value


READERS: Mapping[str, Callable[[object, str, Any], Any]] = MappingProxyType(
    {
        "targets": _targets,
        "thresholds": _numbers(Thresholds),
        "objectives": _numbers(Objectives),
        "chat_id": _chat_id,
        "chats": _chats,
        "token_file": _token_file,
        "alertmanager": _version,
        "telegram_api": _url,
        "runbooks": _url,
        "recording_rules": _flag,
    }
)
"""Every option, with what turns a raw value, the name of its source and the value before into a checked one."""

OPTION_NAMES = {"targets": "target", "thresholds": "threshold", "objectives": "objective", "chats": "chat"}
"""What the options of the command line are called that can be given several times."""
