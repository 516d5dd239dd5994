"""Reading source code: its text, its syntax tree, and the comments to the linter in it."""

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from difflib import get_close_matches

from llm_common.lint.rules import RULES

MARK = re.compile(r"#\s*llm-common\s*:\s*(?P<order>.*?)\s*(?=#|$)")
MEANT = ("ignore", "ignored", "ignoring", "noqa", "disable", "skip")
"""What the first word of an order resembles. Other comments that begin with the package's name are none."""
IGNORE = re.compile(r"ignore(?:\s*\[(?P<codes>[^\[\]]*)\])?(?![\w\[])")


class ReadError(Exception):
    """Code can't be read or parsed. It has the code of the rule, and the line and column where that showed."""

    def __init__(self, code: str, message: str, fix: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix
        self.line = line
        self.column = column


def read(path: str) -> str:
    """Return the text of a file. Raises :class:`ReadError` where it can't be read."""
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except OSError as problem:
        raise ReadError("LC902", f"the file can't be read: {problem.strerror or problem}", "make it readable") from None


def decode(code: bytes) -> str:
    """Return code as text, each line ended by a line feed; its encoding is what it declares (PEP 263).

    Raises :class:`ReadError` where it isn't in that encoding.
    """
    fix = "save it as UTF-8, or declare its encoding in the first line"
    try:
        encoding = declared_encoding(code)
        text = code.decode(encoding)
        text.encode()  # some encodings make what is no Unicode
    except UnicodeDecodeError as problem:
        line = code[: problem.start].count(b"\n") + 1
        message = f"the text isn't valid {problem.encoding}: {problem.reason}"
        raise ReadError("LC902", message, fix, line) from None
    except (SyntaxError, LookupError, ValueError) as problem:
        raise ReadError("LC902", f"the text can't be decoded: {one_line(problem)}", fix) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def declared_encoding(code: bytes) -> str:
    """Return the encoding that code declares in its first two lines."""
    try:
        return tokenize.detect_encoding(io.BytesIO(code).readline)[0]
    except SyntaxError:
        code.decode()  # where these lines aren't UTF-8, this tells at which place
        raise


def parse(text: str) -> ast.Module:
    """Return the syntax tree of ``text``. Raises :class:`ReadError` where it isn't Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (RecursionError, MemoryError):
        raise too_deep() from None
    except (SyntaxError, ValueError) as problem:  # the latter for null bytes, in older versions
        line, column = getattr(problem, "lineno", None) or 1, max(getattr(problem, "offset", None) or 1, 1)
        message = f"this isn't Python: {one_line(getattr(problem, 'msg', problem))}"
        raise ReadError("LC901", message, "mend the syntax, or exclude the file", line, column) from None


def too_deep() -> ReadError:
    """Return the error for code that is nested more deeply than the interpreter can follow."""
    return ReadError("LC901", "the code is nested too deeply to be read", "split its longest expression")


def one_line(problem: object) -> str:
    """Return the text of an exception without line breaks."""
    return " ".join(str(problem).split())


@dataclass(slots=True)
class Ignore:
    """A comment that silences its line."""

    line: int
    column: int
    end_column: int
    codes: frozenset[str]
    """The codes that it silences; empty for all."""
    used: set[str] = field(default_factory=set)
    """The codes of what it has silenced."""
    first: int = 0
    last: int = 0
    """The lines of the statement, or of its header, that it stands in; ``0`` where it stands in none."""

    def silences(self, code: str) -> bool:
        """Return whether it is for ``code``."""
        return not self.codes or code in self.codes


@dataclass(frozen=True, slots=True)
class Misunderstood:
    """A comment to the linter of which it makes nothing."""

    line: int
    column: int
    end_column: int
    message: str
    fix: str


FORM = "write '# llm-common: ignore[CODE]', with a code that 'llm-common lint --list' shows"


def comments(text: str) -> tuple[list[Ignore], list[Misunderstood]]:
    """Return the comments to the linter in ``text``."""
    ignores: list[Ignore] = []
    misunderstood: list[Misunderstood] = []
    if "llm-common" not in text:
        return ignores, misunderstood  # most files: splitting into tokens costs more than parsing
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and (mark := MARK.search(token.string)):
                line, start = token.start
                column, end = start + mark.start() + 1, start + mark.end() + 1
                codes, problem = understood(mark["order"])
                if problem:
                    misunderstood.append(Misunderstood(line, column, end, problem[0], problem[1]))
                if codes is not None:
                    ignores.append(Ignore(line, column, end, codes))
    except (tokenize.TokenError, SyntaxError):
        pass  # what can't be parsed either is reported for that
    return ignores, misunderstood


def widen(ignores: list[Ignore], tree: ast.Module, lines: list[str]) -> None:
    """Tell comments which statement they stand in, or which several, where these share a line."""
    for node in ast.walk(tree) if ignores else ():
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            parts = [node, *getattr(node, "decorator_list", ())]
            for first, last in [(part.lineno, last_line_of(part, lines)) for part in parts]:
                for ignore in ignores:
                    if first <= ignore.line <= last:
                        ignore.first, ignore.last = min(first, ignore.first or first), max(last, ignore.last)


def last_line_of(node: ast.stmt | ast.expr | ast.ExceptHandler, lines: list[str]) -> int:
    """Return the last line of a statement, of one with a body that of its header."""
    body = getattr(node, "body", None)
    if not isinstance(body, list):
        return node.end_lineno or node.lineno
    first: ast.stmt = body[0]
    if lines[first.lineno - 1].encode()[: first.col_offset].strip():
        return first.lineno  # the body stands in the line of the colon
    decorators: list[ast.expr] = getattr(first, "decorator_list", [])
    last = min([first.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    while last > node.lineno and lines[last - 1].strip()[:1] in ("", "#"):
        last -= 1
    return last


def understood(order: str) -> tuple[frozenset[str] | None, tuple[str, str] | None]:
    """Return the codes that a comment silences, or ``None`` where it silences nothing, and what is wrong with it."""
    match = IGNORE.match(order)
    if not match:
        word = re.match(r"[a-z]*", order.lower())
        if not word or not get_close_matches(word[0], MEANT, n=1, cutoff=0.75):
            return None, None
        return None, (f"{order[:40]!r} is no order to the linter", FORM)
    if match["codes"] is None:
        return frozenset(), None
    codes = [one.strip().upper() for one in match["codes"].split(",") if one.strip()]
    if not codes:
        return None, ("the brackets are empty, so nothing is silenced", FORM)
    for code in codes:
        if code not in RULES:
            close = get_close_matches(code, RULES, n=1)
            fix = f"did you mean {close[0]}?" if close else FORM
            known = frozenset(codes) & RULES.keys()
            return known or None, (f"there is no code {code[:20]!r}", fix)
    return frozenset(codes), None
