"""What has to be known of an expression's text: where its strings are, and what Grafana's variables become in it.

The meaning of an expression is for the parser. It is given no variable and no expression that would exhaust its stack.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

import promql_parser
from promql_parser import Expr

LONGEST = 4000
"""How long an expression may be without its strings, in characters. The parser recurses; twice this is safe."""

MARK = "__variable_"
"""How the stand-in for a variable begins."""

DURATION = "5m"
"""What stands for a variable where a duration is asked for."""

NUMBER = "300"
"""What stands for a variable that is a number."""

PANIC = "PanicException"
"""What the parser raises where its own code gives up, as it does on ``offset NaN``; it derives from no Exception."""

VARIABLE = re.compile(
    r"\$(?P<bare>[A-Za-z_]\w*)|\[\[(?P<old>[A-Za-z_]\w*)(?::\w+)?\]\]"
    r"|\$\{(?P<braces>[A-Za-z_]\w*)(?:\.[^:}]+)?(?::[^}]+)?\}"
)
"""Grafana's syntax of variables; what begins with a digit is a group of ``label_replace``."""


class NotPromQLError(ValueError):
    """An expression isn't PromQL. The message says why."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a dashboard, as far as the dashboard itself says what it can be."""

    options: tuple[str, ...] | None = None
    """All its values, or ``None`` where a query or a reader supplies them."""
    duration: bool = False
    """Whether its values are durations."""


def regions(text: str) -> Iterator[str]:
    """Yield for each character of an expression what it is in: ``string``, ``range``, ``comment`` or ``code``.

    The delimiters of a string are in it; the outer brackets of a range aren't.
    """
    quote, escaped, depth, comment = "", False, 0, False
    for one in text:
        if comment:
            comment = one != "\n"
            yield "comment"
        elif quote:
            ends = one == quote and not escaped
            escaped = one == "\\" and not escaped and quote != "`"
            yield "string"
            if ends:
                quote = ""
        elif one in "\"'`":
            quote = one
            yield "string"
        elif one == "#":
            comment = True
            yield "comment"
        else:
            depth -= one == "]" and depth > 0
            yield "range" if depth else "code"
            depth += one == "["


def parsed(text: str, variables: Mapping[str, Variable]) -> Expr:
    """Return an expression as a tree, with stand-ins for the variables in it. Raises :class:`NotPromQLError`."""
    inside = list(regions(text))
    if sum(one != "string" for one in inside) > LONGEST:
        raise NotPromQLError(f"it is longer than {LONGEST:,} characters, its strings left out")
    problem = "it has too many variables whose kind isn't known"
    for filled in islice(fillings(text, inside, variables), 16):
        try:
            return promql_parser.parse(filled)
        except (ValueError, OverflowError) as reason:
            problem = " ".join(str(reason).split())
        except BaseException as reason:
            if type(reason).__name__ != PANIC:
                raise
            problem = str(reason)
    raise NotPromQLError(problem)


def fillings(text: str, inside: list[str], variables: Mapping[str, Variable]) -> Iterator[str]:
    """Yield the expression with each variable replaced by what may stand there, the likeliest first."""
    pieces: list[str] = []
    choices: list[tuple[str, ...]] = []
    end = 0
    for found in VARIABLE.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        name = found["bare"] or found["old"] or found["braces"]
        choices.append(stand_ins(name, variables.get(name, Variable()), inside[found.start()], pieces[-1], text[end:]))
    for chosen in product(*choices):
        yield "".join(piece + value for piece, value in zip(pieces, chosen, strict=True)) + text[end:]


def stand_ins(name: str, variable: Variable, region: str, before: str, after: str) -> tuple[str, ...]:
    """Return what may stand for a variable, which depends on where it stands."""
    marked = f"{MARK}{name}__"
    if region == "string":
        return (marked,)
    if region == "range":
        return (NUMBER if after[:1].isalpha() else DURATION,)
    if variable.duration or before.rstrip(" -").endswith("offset") or name in {"__interval", "__rate_interval"}:
        return (DURATION,)
    if name.startswith("__") or (variable.options and all(map(is_number, variable.options))):
        return (NUMBER,)
    return marked, NUMBER


def is_number(text: str) -> bool:
    """Return whether a text can stand where PromQL wants a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def variable_in(text: str) -> str:
    """Return the name of the variable that a text consists of, or an empty text."""
    inner = text.removeprefix(MARK)
    return inner[:-2] if inner != text and inner.endswith("__") and MARK not in inner else ""


def position(text: str, word: str, after: str = "") -> int:
    """Return where ``word`` stands in an expression, behind ``after`` if it is there; as a whole word if it can be."""
    start = max(0, whole_word(text, after, 0))
    at = whole_word(text, word, start)
    return at if at >= 0 else max(0, text.find(word))


def whole_word(text: str, word: str, start: int) -> int:
    """Return where ``word`` stands between what is no letter, digit, ``_`` or ``:``, or -1."""
    at = text.find(word, start) if word else -1
    while at >= 0:
        around = text[at - 1 : at] + text[at + len(word) : at + len(word) + 1]
        if not any(one.isalnum() or one in "_:" for one in around):
            return at
        at = text.find(word, at + 1)
    return -1
