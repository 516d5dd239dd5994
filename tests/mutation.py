"""Changes the code in thousands of small ways, and asks of each whether the tests notice: `make mutation`.

mutmut does the work; its settings stand in pyproject.toml. For each mutant it runs the tests that come by the changed
function. Here those run first that are most about it, and all of them only where a mutant survives these. What was
decided stays so until the function changes, so an interrupted run goes on where it was; `rm -r mutants` begins anew.

What may survive stands in mutation_survivors.txt, with the reason.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutmut import __main__ as mutmut
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.state import reset_state, state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

FIRST = 40
"""How many tests of a function run first."""

PROCESSES = 2
LEAST = 90.0
LISTED = Path(__file__).with_name("mutation_survivors.txt")

collect = mutmut.collect_or_load_stats


def run(mutants: list[str], most: int | None) -> None:
    """Let mutmut run some mutants, or all that are undecided, with so many tests of each function at most."""

    def collect_some(*args: Any, **kwargs: Any) -> None:
        collect(*args, **kwargs)
        tests = state().tests_by_mangled_function_name
        breadth = Counter(test for found in tests.values() for test in found)
        in_children = {test for test in state().duration_by_test if "child" in test}  # where nobody sees what runs
        for mutant, _, _ in decided():
            function = mutant.partition("__mutmut_")[0]
            module = function.split(".")[-2]
            found = sorted(
                tests.get(function) or in_children, key=lambda test: (module not in test, breadth[test], test)
            )
            tests[function] = set(found[:most])

    reset_state()
    mutmut.collect_or_load_stats = collect_some
    mutmut._run(mutants, PROCESSES)


def decided() -> Iterator[tuple[str, Path, str]]:
    """Yield each mutant, the file that it is in, and what became of it."""
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for mutant, code in data.exit_code_by_key.items():
            yield mutant, path, status_by_exit_code[code]


def described(mutant: str, path: Path) -> str:
    """Return what a mutant changes, in the way that survivors are listed: the function, and the changed line."""
    name, of = orig_function_and_class_names_from_key(mutant)
    diff = str(get_diff_for_mutant(mutant, path=path)).splitlines()
    changed = " / ".join(line[1:].strip() for line in diff if line.startswith("+") and not line.startswith("+++"))
    return f"{path.stem}.{f'{of}.' if of else ''}{name}: {changed}"


def main(modules: list[str]) -> int:
    """Run what is undecided, or the modules named; return 0 where enough was noticed and the rest is listed."""
    listed = {line.strip() for line in LISTED.read_text(encoding="utf-8").splitlines() if line.startswith(" ")}
    run([f"llm_common*.{module}.x*" for module in modules], FIRST)
    chosen = [one for one in decided() if not modules or one[1].stem in modules]
    doubtful = [
        mutant
        for mutant, path, status in chosen
        if status in ("survived", "no tests") and described(mutant, path) not in listed
    ]
    if doubtful:
        run(doubtful, None)
    chosen = [one for one in decided() if not modules or one[1].stem in modules]
    counts = Counter((path.stem, status) for _, path, status in chosen)
    counts += Counter(("all", status) for _, _, status in chosen)
    print(f"{'module':16}{'mutants':>8}{'killed':>8}{'timeout':>8}{'left':>8}{'share':>8}")
    for module in dict.fromkeys(module for module, _ in counts):
        of = {status: number for (one, status), number in counts.items() if one == module}
        every, killed, timeouts = sum(of.values()), of.get("killed", 0), of.get("timeout", 0)
        share = 100 * (killed + timeouts) / every
        print(f"{module:16}{every:8}{killed:8}{timeouts:8}{every - killed - timeouts:8}{share:7.1f}%")
    left = {described(mutant, path) for mutant, path, status in chosen if status not in ("killed", "timeout")}
    print(*(f"not listed in {LISTED.name}: {one}" for one in sorted(left - listed)), sep="\n")
    if not modules:
        print(*(f"listed there, but noticed: {one}" for one in sorted(listed - left)), sep="\n")
    return int(share < LEAST or bool(left - listed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
