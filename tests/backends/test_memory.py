import os
import threading

from llm_common import action_tracking, bound, configure, dispatch
from llm_common.backends.memory import MemoryBackend
from llm_common.contract import ActionEvent


def test_events_are_kept_in_order_and_reading_takes_nothing_away() -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory])
    for name in ("first_task", "second_task"):
        with action_tracking(name):
            pass
    assert memory.events == memory.events == (ActionEvent("first_task"), ActionEvent("second_task"))


def test_chosen_by_name_it_forgets_the_oldest_at_its_limit() -> None:
    memory = MemoryBackend(limit=2)
    configure(app="shop_bot", backends=[memory])
    for name in ("1_task", "2_task", "3_task"):
        with action_tracking(name):
            pass
    assert [event.name for event in memory.events] == ["2_task", "3_task"]
    assert memory.dropped == 1
    configure(app="shop_bot", backends=["memory"])
    (named,) = dispatch.active().backends.values()
    assert isinstance(named, MemoryBackend)
    assert named._records.maxlen == 10_000


def test_sizes_given_to_one_tracker_from_many_threads_add_up() -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory])
    with action_tracking("import_task") as tracker:

        def add() -> None:
            for _ in range(500):
                tracker.size(1)

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert memory.events == (ActionEvent("import_task", size=2000),)


def test_a_child_process_can_record_though_the_parent_held_the_locks() -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory])
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with memory._lock, bound.size_lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:  # pragma: no cover - ends without reporting
        with action_tracking("child_task") as tracker:
            tracker.size(1)
        os._exit(0 if len(memory.events) == 1 else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
