import sys
from collections import Counter

from mutmut import __main__ as mutmut
from mutmut.state import state

collect = mutmut.collect_or_load_stats
FEW = int(sys.argv[1])


def focused(*args, **kwargs):
    collect(*args, **kwargs)
    tests = state().tests_by_mangled_function_name
    breadth = Counter(test for found in tests.values() for test in found)
    for function, found in list(tests.items()):
        module = function.rpartition(".")[0].rpartition(".")[2]
        tests[function] = set(sorted(found, key=lambda test: (module not in test, breadth[test], test))[:FEW])


if FEW:
    mutmut.collect_or_load_stats = focused
mutmut._run(sys.argv[2:], 2)
