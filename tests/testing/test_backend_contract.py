"""The suite for backends passes on the documented example of one, and fails on everything that is wrong with it."""

from pathlib import Path
from typing import NamedTuple

import pytest
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "write-a-backend.md"
HASTY = "\n    patience = 2.0\n    examples = 40\n"
"""A wrong backend need not be waited for long; a right one may be slow on a busy machine."""

RANDOM = "random_programs"
UNSHRUNK = """
from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.generate], database=None, derandomize=True)
settings.load_profile("unshrunk")
"""
"""That a program fails is enough here; to find the shortest one takes long."""


class Fault(NamedTuple):
    """What is wrong with a backend, how its source comes to it, and the cases of the suite that must fail."""

    what: str
    right: str
    wrong: str
    caught_by: str


FAULTS = [
    Fault(
        "swaps two labels",
        '"env": settings.env, "app": settings.app}\n        self._tally = tally\n        self._counts',
        '"env": settings.app, "app": settings.env}\n        self._tally = tally\n        self._counts',
        "name_type_and_labels",
    ),
    Fault(
        "swaps two labels of HTTP",
        "{**http._asdict(), ",
        '{**http._asdict(), "method": http.app_type, "app_type": http.method, ',
        "same_text",
    ),
    Fault(
        "loses one in a thousand",
        "self._new.extend(measurements)  # atomic",
        "self.n = getattr(self, 'n', 0) + 1\n        if self.n % 1000:\n            self._new.extend(measurements)",
        "threads_lose",
    ),
    Fault(
        "counts one in a thousand twice",
        "self._new.extend(measurements)  # atomic",
        "self.n = getattr(self, 'n', 0) + 1\n        self._new.extend([*measurements] * (1 if self.n % 1000 else 2))",
        "threads_lose",
    ),
    Fault(
        "counts cancelled as error",
        "self._counts[status]",
        "self._counts[Status.ERROR if status is Status.CANCELLED else status]",
        f"{RANDOM} or status_says",
    ),
    Fault("writes the status as code has it", "status=status.value", "status=repr(status)", "status_says"),
    Fault("forgets the first bucket", "for bound in bounds]", "for bound in bounds[1:]]", f"{RANDOM} or name_type"),
    Fault(
        "forgets the last bucket",
        '        self._buckets.append((inf, series(metric, labels, "_bucket", le="+Inf")))\n',
        "",
        "name_type",
    ),
    Fault("leaves the bound out of its bucket", "value <= bound", "value < bound", "documented_bounds"),
    Fault(
        "counts in one bucket alone",
        "buckets = [",
        "buckets = [next((bucket, 1) for bound, bucket in self._buckets if value <= bound)] or [",
        "documented_bounds",
    ),
    Fault("has bounds of its own", "settings.action_duration_buckets", "ACTION_DURATION.buckets", "can_be_configured"),
    Fault(
        "takes one histogram's bounds for another's",
        "settings.http_duration_buckets",
        "settings.action_duration_buckets",
        "name_type",
    ),
    Fault("records milliseconds", "observed(seconds)]", "observed(seconds * 1000)]", "name_type"),
    Fault(
        "observes the duration of successes alone",
        "*self._duration.observed(seconds)]",
        "*(self._duration.observed(seconds) if status is Status.OK else [])]",
        f"{RANDOM} or status_says",
    ),
    Fault("adds up whole sizes alone", "(self._size, amount)", "(self._size, int(amount))", "sizes_add_up"),
    Fault(
        "shows sizes when the action has ended",
        "self._tally.add([(self._size, amount)])",
        "self.held = [*getattr(self, 'held', []), (self._size, amount)]",
        "sizes_add_up",
    ),
    Fault("swaps the directions", '("in", "out")', '("out", "in")', f"{RANDOM} or all_their_labels"),
    Fault(
        "counts timeouts as errors",
        "{**http._asdict(), ",
        '{**http._asdict(), "status": http.status.replace("timeout", "error"), ',
        "all_their_labels",
    ),
    Fault(
        "reads, adds and writes without a lock",
        "self._new.extend(measurements)  # atomic",
        (
            "(series, amount), *others = measurements\n"
            "        total = self._totals[series]\n"
            "        __import__('time').sleep(0)\n"
            "        self._totals[series] = total + amount\n"
            "        self._new.extend(others)"
        ),
        "threads_lose",
    ),
    Fault(
        "waits for a lock that it may hold itself",
        "self._new.extend(measurements)  # atomic",
        "with self._lock:\n            self._new.extend(measurements)",
        "interruptions",
    ),
    Fault(
        "may be entered twice, and then loses one",
        "self._new.extend(measurements)  # atomic",
        (
            "for series, amount in measurements:\n"
            "            total = self._totals[series]\n"
            "            self._totals[series] = total + amount"
        ),
        "interruptions",
    ),
    Fault(
        "reads, adds and writes under a lock that may be taken twice",
        "self._new.extend(measurements)  # atomic",
        (
            "with vars(self).setdefault('lock', __import__('threading').RLock()):\n"
            "            for series, amount in measurements:\n"
            "                self._totals[series] = self._totals.get(series, 0.0) + amount"
        ),
        "interruptions",
    ),
    Fault(
        "waits for a lock when it is bound",
        "return ActionTally(self.tally, name, settings)",
        "with vars(self).setdefault('lock', Lock()):\n            return ActionTally(self.tally, name, settings)",
        "first_used",
    ),
    Fault(
        "shows the latest series alone",
        "return dict(self._totals)",
        "return dict(list(self._totals.items())[-20_000:])",
        "many_series",
    ),
    Fault(
        "takes its time to shut down",
        "print(self.text())",
        "__import__('time').sleep(7)",
        "everything_recorded",
    ),
    Fault(
        "has the bounds of the first configuration",
        "    @hookimpl\n    def llm_common_bind_action(self, name, settings):\n",
        (
            "    @hookimpl\n    def llm_common_configured(self, settings):\n"
            "        vars(self).setdefault('first', settings)\n\n"
            "    @hookimpl\n    def llm_common_bind_action(self, name, settings):\n"
            "        settings = __import__('dataclasses').replace("
            "settings, action_duration_buckets=self.first.action_duration_buckets)\n"
        ),
        "can_be_configured",
    ),
    Fault("doesn't escape", "return text.replace", "return text\n    return text.replace", "hostile"),
    Fault("cuts labels", "{escaped(value)}", "{escaped(value[:500])}", "hostile"),
    Fault("trims labels", "{escaped(value)}", "{escaped(value.strip())}", "hostile"),
    Fault("takes upper case for lower case", '"name": name,', '"name": name.lower(),', "hostile"),
    Fault(
        "drops what isn't ASCII",
        "return text.replace",
        "return text.encode('ascii', 'replace').decode().replace",
        "hostile",
    ),
    Fault(
        "keeps its first labels",
        "return ActionTally(self.tally, name, settings)",
        "return vars(self).setdefault(name, ActionTally(self.tally, name, settings))",
        "another_configuration",
    ),
    Fault("begins anew with each configuration", "print(self.text())", "self.tally.__init__()", "after_shutdown"),
    Fault("stops when it is shut down", "print(self.text())", "self.tally.add = None", "under_way_at_shutdown"),
    Fault(
        "shows nothing any more after the shutdown",
        "print(self.text())",
        "self.tally.totals = dict",
        "after_shutdown",
    ),
    Fault(
        "never comes back from the shutdown",
        "print(self.text())",
        "__import__('threading').Event().wait()",
        "after_shutdown",
    ),
    Fault(
        "leaks a thread",
        "self.tally = Tally()",
        (
            "self.tally = Tally()\n"
            "        self.wake = __import__('threading').Event()\n"
            "        __import__('threading').Thread(target=self.wake.wait, daemon=True).start()"
        ),
        "no_thread_behind",
    ),
    Fault(
        "shows what was never counted",
        'lines.append(f"# TYPE',
        "lines.append(f'{metric.name}_created 1')\n            lines.append(f\"# TYPE",
        "name_type",
    ),
    Fault("has the wrong type", "{metric.kind}", "gauge", "name_type"),
    Fault("adds a suffix to names", 'f"{metric.name}{suffix}', 'f"{metric.name}{suffix}_units', "name_type"),
    Fault(
        "adds a label",
        'f"{metric.name}{suffix}{{{pairs}}}"',
        "f'{metric.name}{suffix}{{{pairs},host=\"a\"}}'",
        "name_type",
    ),
    Fault(
        "lets values fall between two scrapes",
        "return dict(self._totals)",
        "self.n = -getattr(self, 'n', 1)\n            return {one: n + self.n for one, n in self._totals.items()}",
        "threads_lose",
    ),
]


def shown_files() -> dict[str, str]:
    parser = CodeBlockParser("python", evaluator=lambda example: None)
    found = [str(example.parsed) for example in Document.parse(str(PAGE), parser).examples()]
    return {
        block.split("\n", 1)[0].removeprefix("# "): block for block in found if block.startswith(("# tal", "# test"))
    }


def run(pytester: pytest.Pytester, backend: str, chosen: str = "", options: str = HASTY) -> pytest.RunResult:
    files = shown_files()
    (pytester.path / "tally_metrics.py").write_text(backend, encoding="utf-8")
    suite = files["test_tally_metrics.py"].replace("(BackendContract):\n", f"(BackendContract):{options}")
    (pytester.path / "test_tally_metrics.py").write_text(suite, encoding="utf-8")
    pytester.makeconftest(UNSHRUNK)
    pytester.syspathinsert()
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *(["-k", chosen] if chosen else []))


def test_the_documented_example_passes(pytester: pytest.Pytester) -> None:
    result = run(pytester, shown_files()["tally_metrics.py"], options="\n")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] > 40


@pytest.mark.once
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_wrong_backend_is_caught(fault: Fault, pytester: pytest.Pytester) -> None:
    right = shown_files()["tally_metrics.py"]
    assert fault.right in right
    result = run(pytester, right.replace(fault.right, fault.wrong), fault.caught_by)
    for case in fault.caught_by.split(" or "):
        result.stdout.fnmatch_lines([f"FAILED*{case}*"])
