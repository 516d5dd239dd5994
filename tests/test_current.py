"""``current_action()`` where it is imported late: in a process of its own, and as if imported just now."""

import subprocess
import sys
from collections.abc import Generator

import pytest

from llm_common import action_tracking, action_tracking_decorator, configure, current_action
from llm_common.backends.memory import MemoryBackend
from llm_common.current import adopt_running
from llm_common.tracker import NO_ACTION, ActionTracker, set_current

BEFORE = """
import sys
from llm_common import action_tracking, action_tracking_decorator, configure
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from prometheus_client import CollectorRegistry, generate_latest
registry = CollectorRegistry()
backend = {"memory": MemoryBackend, "prometheus": lambda: PrometheusBackend(registry)}[sys.argv[1]]()
configure(app="shop_bot", backends=[backend], strict=True)
assert "llm_common.current" not in sys.modules

def late():
    from llm_common import current_action
    current_action().size(3)
    return current_action()
"""

AFTER = """
assert late().size(1) is None
assert repr(late()) == "<NoAction>"
if sys.argv[1] == "memory":
    print(sorted((event.name, event.size) for event in backend.events))
else:
    text = generate_latest(registry).decode()
    print(sorted(line for line in text.splitlines() if line.startswith("genapp_action_size_total")))
"""

PROGRAMS = {
    "a decorated function": """
@action_tracking_decorator("outer_agent")
def outer():
    inner()
    late()
@action_tracking_decorator("inner_task")
def inner():
    late(); late()
outer()
""",
    "a coroutine": """
import asyncio
@action_tracking_decorator("outer_agent")
async def outer():
    await inner()
    late()
@action_tracking_decorator("inner_task")
async def inner():
    await asyncio.sleep(0)
    late(); late()
asyncio.run(outer())
""",
    "a named tracker": """
def work():
    with action_tracking("outer_agent") as outer:
        with action_tracking("inner_task") as inner:
            assert late() is inner
            late()
        late()
work()
""",
    "a generator": """
@action_tracking_decorator("outer_agent")
def outer():
    list(inner())
    late()
@action_tracking_decorator("inner_task")
def inner():
    late()
    yield 1
    yield 2
    late()
outer()
""",
}


AROUND_A_GENERATOR = """
import sys
from llm_common import action_tracking, action_tracking_decorator, configure
from llm_common.backends.memory import MemoryBackend
configure(app="shop_bot", backends=[MemoryBackend()], strict=True)

@action_tracking_decorator("stream_llm_call")
def stream():
    from llm_common import current_action
    yield current_action()
    with action_tracking("inner_task"):
        pass
    yield current_action()

steps = stream()
inside = next(steps)
from llm_common import current_action
print(inside, current_action(), next(steps) is inside, current_action())
"""


def test_an_import_inside_a_generator_leaves_its_consumer_alone() -> None:
    command = [sys.executable, "-c", AROUND_A_GENERATOR]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert out == "<ActionTracker 'stream_llm_call' running> <NoAction> True <NoAction>\n"


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("backend", ["memory", "prometheus"])
def test_an_import_in_the_middle_of_an_action_finds_it(program: str, backend: str) -> None:
    command = [sys.executable, "-c", BEFORE + program + AFTER, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    sizes = {"inner_task": 6, "outer_agent": 3}
    if backend == "memory":
        assert done.stdout == f"{list(sizes.items())}\n"
    else:
        for name, size in sizes.items():
            assert f'name="{name}"}} {size}.0' in done.stdout


def test_trackers_in_variables_of_the_callers_become_current_the_inner_one_first() -> None:
    configure(app="shop_bot", backends=[MemoryBackend()], strict=True)
    nobody, unused, ended = current_action(), action_tracking("unused_task"), action_tracking("ended_task")
    with ended:
        pass

    def inside() -> None:
        with action_tracking("inner_task") as inner:
            set_current(NO_ACTION)
            adopt_running()
            assert current_action() is inner

    with action_tracking("outer_agent") as outer:
        inside()
        assert current_action() is outer
    assert current_action() is nobody is NO_ACTION
    assert "not running" in repr(unused)


def test_the_tracker_of_a_generator_becomes_current_in_its_steps_alone() -> None:
    configure(app="shop_bot", backends=[MemoryBackend()], strict=True)

    @action_tracking_decorator("stream_llm_call")
    def stream() -> Generator[ActionTracker, None, None]:
        adopt_running()
        yield current_action()
        yield current_action()

    with action_tracking("outer_agent") as outer:
        set_current(NO_ACTION)
        steps = stream()
        inside = next(steps)
        assert "stream_llm_call" in repr(inside)
        assert current_action() is outer
        assert next(steps) is inside
        steps.close()
    assert current_action() is NO_ACTION


def test_nothing_is_kept_where_nobody_asks() -> None:
    code = BEFORE + (
        "from llm_common.tracker import NO_ACTION, get_current\n"
        "with action_tracking('outer_agent'):\n"
        "    assert get_current() is NO_ACTION\n"
        "import llm_common.prometheus, llm_common.testing, llm_common.exposition\n"
        "assert 'llm_common.current' not in sys.modules\n"
        "from llm_common.prometheus import current_action\n"
        "with action_tracking('outer_agent') as tracker:\n"
        "    assert current_action() is tracker\n"
    )
    subprocess.run([sys.executable, "-c", code, "prometheus"], check=True, timeout=60)


def test_the_package_has_no_other_names() -> None:
    import llm_common

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        llm_common.nonsense
