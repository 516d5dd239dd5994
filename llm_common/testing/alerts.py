"""Whether what a test recorded would ring: it becomes time series, on which promtool evaluates the real rules.

promtool compares rules with expectations. Here it is given none, and what it reports as unexpected is the answer.
"""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from llm_common.backends.memory import Record
from llm_common.catalog import ACTION_IN_PROGRESS, Buckets
from llm_common.errors import ConfigurationError
from llm_common.monitoring import conditions
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import WINDOW, quoted
from llm_common.monitoring.rules import alert_groups, needed_for, recording_groups
from llm_common.reporting.rules import hint
from llm_common.testing.families import Series, families, values
from llm_common.testing.language import text as text_of

Groups = Sequence[Mapping[str, Any]]

HALF_A_DAY = 43_200
COMPARISON = re.compile(r" (?:[<>=!]=|[<>]) [0-9.e+-]+")
ANSWER = re.compile(r'expr: "# (\d+)\\n.*\n\s+exp: .*\n\s+got: (.*)')
STATE = re.compile(r'__name__="ALERTS", alertname="[^"]*", alertstate="firing",? ?')
VALUE = re.compile(r"(?<=\} )[0-9.E+-]+")


class Happening(NamedTuple):
    """What happens, in seconds: how often, since when, and for how long more."""

    every: float
    before: float
    lasting: float
    ends: bool
    """Whether nothing happens in the time that it lasts."""

    @property
    def step(self) -> int:
        """How often rules are evaluated; as Prometheus does, but for long times."""
        return 60 if self.before + self.lasting <= HALF_A_DAY else 300

    @property
    def end(self) -> int:
        """When the question is asked. What begins shows with the next evaluation, what ends was there before."""
        whole = math.ceil((self.before + self.lasting) / self.step) * self.step
        return whole if self.ends else whole + self.step

    def values(self, amount: float) -> str:
        """Return the values of a counter, minute by minute, that ``amount`` is added to each time."""
        minutes, last = self.end // 60, (self.before if self.ends else self.end) // 60
        if self.every <= 60:
            often = amount * 60 / self.every
            counted, total = [f"0+{_number(often)}x{last:.0f}"], often * last
        else:
            apart = round(self.every / 60)
            times = int(last // apart)
            counted, total = [f"{_number(number * amount)}x{apart - 1}" for number in range(times)], times * amount
        return " ".join([*counted, f"{_number(total)}x{minutes}"])


class Verdict(NamedTuple):
    """Whether an alert fires, and why."""

    firing: str
    """The labels of what fires; empty where nothing does."""
    explanation: Sequence[str]
    """What the condition came to and what was allowed, in lines."""


def judge(
    alert: str,
    records: Sequence[Record],
    buckets: Buckets,
    for_: str,
    every: str,
    options: Options | None,
    rules: Path | str | None,
    labels: Mapping[str, str],
) -> Verdict:
    """Let what was recorded happen again and again, and ask promtool whether the alert fires in the end.

    Raises :class:`~llm_common.errors.ConfigurationError` where promtool or the alert is missing, or where nothing was
    recorded that the alert asks for.
    """
    if rules and options:
        raise ConfigurationError("options are those of this package's rules; give either options or rules, not both")
    groups = _read(Path(rules)) if rules else [*recording_groups(), *alert_groups(options or Options())]
    rule = _rule(alert, groups)
    needed = needed_for(alert, groups)
    known = {one.name: one for one in alerts(options or Options())}.get(alert)
    happening = _happening(needed, for_, every, known.silence if known else ())
    text = json.dumps(needed)
    asked = {series: value for series, value in values(families(records, buckets)).items() if series[0] in text}
    if not asked:
        raise ConfigurationError(
            f"nothing was recorded that {alert} asks for; record it first, in a block of record_metrics() or a test "
            f"with the fixture recorded_metrics (the rule: {rule['expr']})"
        )
    had = {label for _, pairs in asked for label, _ in pairs} | set(rule.get("labels", ()))
    for label, value in labels.items():
        text_of(value, f"the label {label}")
        # What no alert of this name can have would make every silence true.
        if label not in had and not re.search(rf"\b{re.escape(label)}\b", text):
            raise ConfigurationError(
                f"{alert} has no label {label!r}{hint(label, had)} (known: {', '.join(sorted(had))})"
            )
    selector = ", ".join(
        f"{label}={quoted(value)}" for label, value in {"alertname": alert, "alertstate": "firing", **labels}.items()
    )
    # Without its comparisons, a condition shows what was compared.
    questions = ["vector(1)", f"ALERTS{{{selector}}}", COMPARISON.sub("", rule["expr"])]
    answers = _ask(needed, asked, happening, questions)
    allowed = rule.get("for", "0s")
    explanation = [f"the condition came to: {VALUE.sub(_rounded, answers.get(2, '')) or 'nothing'}"]
    if known and not rules:
        chosen = options or Options()
        limits = asdict(chosen.thresholds) | asdict(chosen.objectives)
        explanation += [f"{name} = {limits[name]:g}" for name in known.options]
    else:
        explanation.append(f"the rule: {rule['expr']}")
    if happening.lasting < seconds_of(allowed, "for"):
        return Verdict("", [*explanation, f"the rule waits for {allowed}, which is longer than {for_}"])
    return Verdict(STATE.sub("", answers.get(1, "")), explanation)


def seconds_of(duration: str, name: str) -> float:
    """Return the seconds of a duration such as ``90s`` or ``1h30m``; raise an error that names it otherwise."""
    if not re.fullmatch(r"(?:[0-9]+[smhdw])+", str(duration)):
        raise ConfigurationError(f"{name} is {duration!r}; accepted: a duration such as 90s, 10m, 1h30m or 2d")
    return sum(map(conditions.seconds_of, re.findall(r"[0-9]+[smhdw]", duration)))


def _happening(needed: Groups, for_: str, every: str, silence: Sequence[tuple[str, str]]) -> Happening:
    rhythm, lasting = seconds_of(every, "every"), seconds_of(for_, "for_")
    if rhythm == 0:
        raise ConfigurationError(f"every is {every!r}; accepted: a duration above 0")
    for often, before in silence:
        if rhythm <= seconds_of(often, "silence"):
            return Happening(rhythm, seconds_of(before, "silence"), lasting, ends=True)
    if silence:
        raise ConfigurationError(f"every is {every!r}; what happens less often than {silence[-1][0]} is never missed")
    windows = re.findall(r"\[([0-9smhdw]+)[:\]]", json.dumps(needed)) or [WINDOW]
    return Happening(rhythm, max(seconds_of(one, "a window") for one in windows), lasting, ends=False)


def _ask(
    groups: Groups, recorded: Mapping[Series, float], happening: Happening, questions: Sequence[str]
) -> Mapping[int, str]:
    promtool = shutil.which("promtool")
    if promtool is None:
        raise ConfigurationError(
            "promtool is missing, which evaluates the rules; it comes with Prometheus: apt-get install prometheus"
        )
    test = {
        "interval": "1m",
        "input_series": [
            {"series": _selector(series), "values": _values(series, amount, happening)}
            for series, amount in recorded.items()
        ],
        "promql_expr_test": [
            {"expr": f"# {number}\n{question}", "eval_time": f"{happening.end}s"}
            for number, question in enumerate(questions)
        ],
    }
    named = [{**group, "name": str(number)} for number, group in enumerate(groups)]  # unique, whatever the files were
    with TemporaryDirectory() as directory:
        _write(Path(directory, "rules.yml"), {"groups": named})
        _write(
            Path(directory, "test.yml"),
            {
                "rule_files": ["rules.yml"],
                "evaluation_interval": f"{happening.step}s",
                "group_eval_order": [group["name"] for group in named],
                "tests": [test],
            },
        )
        command = [promtool, "test", "rules", "test.yml"]
        done = subprocess.run(command, cwd=directory, capture_output=True, encoding="utf-8", check=False)  # noqa: S603
    answers = {int(number): found for number, found in ANSWER.findall(done.stdout + done.stderr)}
    if 0 not in answers:  # the first question has an answer whatever was recorded
        raise ConfigurationError(f"promtool can't evaluate the rules:\n{done.stdout}{done.stderr}")
    return answers


def _selector(series: Series) -> str:
    name, labels = series
    return f"{name}{{{', '.join(f'{label}={quoted(value)}' for label, value in labels)}}}"


def _values(series: Series, amount: float, happening: Happening) -> str:
    if series[0] == ACTION_IN_PROGRESS.name:
        return f"{_number(amount)}x{happening.end // 60}"
    return happening.values(amount)


def _number(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.4g}"


def _write(path: Path, content: object) -> None:
    # JSON is YAML, but for characters outside the BMP, and those that YAML wants to be escaped.
    text = json.dumps(content, ensure_ascii=False)
    path.write_text(re.sub(r"[^\x20-\x7e]", lambda one: f"\\U{ord(one[0]):08x}", text), encoding="ascii")


def _rule(alert: str, groups: Groups) -> Mapping[str, Any]:
    rules: dict[str, Mapping[str, Any]] = {
        rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule
    }
    if alert not in rules:
        raise ConfigurationError(
            f"there is no alert {alert!r}{hint(alert, rules)} (known: {', '.join(rules) or 'none'})"
        )
    return rules[alert]


def _read(path: Path) -> Groups:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError(
            "reading rules needs PyYAML; install it with: pip install 'llm_common[monitoring]'"
        ) from None
    groups: list[Mapping[str, Any]] = []
    for file in _files(path):
        try:
            found = yaml.safe_load(file.read_text("utf-8")) or {}
            for group in found.get("groups") or ():
                rules = [{**rule, "expr": str(rule["expr"])} for rule in group.get("rules") or ()]
                groups.append({**group, "rules": rules})
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, KeyError) as problem:
            raise ConfigurationError(
                f"{file} can't be read as rules: {problem!r}; 'promtool check rules {file}' says more"
            ) from None
    if not groups:
        raise ConfigurationError(f"there are no rules in {str(path)!r}; of an export they are in prometheus/rules")
    return groups


def _files(path: Path) -> Iterator[Path]:
    found: Iterable[Path] = sorted(path.glob("*.y*ml")) if path.is_dir() else [path] * path.is_file()
    if not found:
        raise ConfigurationError(f"rules is {str(path)!r}; accepted: a file of rules, or a folder with such files")
    yield from found
