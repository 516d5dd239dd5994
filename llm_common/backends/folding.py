"""The files of processes that are gone, folded into one, so that a scrape reads no more than those that live have.

A process holds a lock on each of its files until it ends, however it ends. So whether a process lives can be told in
another container too, where its number means nothing. Whoever scrapes folds: it writes the sums to a new file, and
removes those that are in it. A journal says beforehand what the new file has in it. As soon as that is there the others
don't count any more, whether they are removed yet or not; so nothing is lost or counted twice wherever in between the
process is killed.
"""

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from threading import RLock
from time import monotonic, sleep

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

if sys.platform != "win32":  # pragma: no branch - nothing is ever folded there
    import fcntl

logger = logging.getLogger("llm_common")

GAUGE_FILES = "gauge_livesum"
"""How the names of files with gauges begin: prometheus_client adds up the processes that live."""

FILE_SIZE = 1 << 20
"""How large a file begins, in bytes: prometheus_client's own choice. It is sparse, and grows by doubling."""

PATIENCE = 5.0
"""How long, in seconds, a scrape waits for another one, which may fold."""

LOCK = "llm_common.lock"
JOURNAL = "llm_common_folds.json"
"""Says which files are in a fold, by its name. The names are used once, so those of files that are gone do no harm."""

OWNED = re.compile(rf"(counter|histogram|{GAUGE_FILES})_llm_common_(\d+)_[0-9a-f]+\.db")
FOLD = re.compile(r"(counter|histogram)_llm_common_folded_[0-9a-f]+\.db")
UNFINISHED_FOLD = re.compile(rf"{FOLD.pattern}\.new")


def begin_file(directory: str, kind: str) -> tuple[str, int]:
    """Make an empty file of prometheus_client's format; return its path and the descriptor that keeps it locked.

    It appears there whole and locked. Made in place, as prometheus_client does it, it is empty for a moment, and a
    scrape by another process that comes just then fails.
    """
    path = os.path.join(directory, f"{kind}_llm_common_{os.getpid()}_{token()}")
    unfinished = f"{path}.new"  # a name that no scrape looks at
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.truncate(descriptor, FILE_SIZE)
        path += ".db" if locked(descriptor) else "_unlocked.db"  # nobody could tell whether its process is gone
        os.replace(unfinished, path)
    except BaseException:
        os.close(descriptor)
        raise
    return path, descriptor


def token() -> str:
    """Return what makes the name of a file one that no other has, ever."""
    return os.urandom(8).hex()


def locked(file: int | FileIO) -> bool:
    """Lock a file for as long as it is open, unless another has it locked or the file system knows no locks."""
    if sys.platform == "win32":  # pragma: no cover
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_dead(path: str, process: int) -> bool:
    """Return whether the process that wrote a file is surely gone: neither its number nor its lock is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        pass
    except (OSError, OverflowError):  # it runs, as another user; or the name isn't one of ours
        return False
    else:
        return False  # maybe another process; but one that became a daemon may have closed what holds the lock
    try:
        with FileIO(path) as file:  # what is open for reading alone can be locked too, unless it is on another machine
            return locked(file)
    except OSError:
        return False


class FoldingCollector(MultiProcessCollector):
    """The sum over the files of all processes, those of prometheus_client's own metrics as well.

    Folds the files of processes that are gone before it reads the rest. prometheus_client's own files aren't folded,
    since their processes hold no lock.
    """

    def __init__(self, registry: CollectorRegistry | None, directory: str) -> None:
        super().__init__(registry, directory)  # type: ignore[no-untyped-call]
        self._directory = directory

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        with alone(self._directory) as is_alone:
            names = set(os.listdir(self._directory))
            if is_alone:
                with suppress(OSError):  # a full disk, or files of others that can't be removed: nothing is lost
                    fold_dead(self._directory, names)
            files = [os.path.join(self._directory, name) for name in counting(self._directory, names)]
            families: Iterator[Family] = iter(self.merge(files))  # type: ignore[no-untyped-call]
        return families


_scraping = RLock()  # re-entrant, so that a signal handler that scrapes can't deadlock
_alone = False


@contextmanager
def alone(directory: str) -> Iterator[bool]:
    """Keep the scrapes of all processes apart; yield whether that succeeded.

    It doesn't for one that a scrape of the same thread was interrupted for, and where the directory can't be written.

    Raises :class:`TimeoutError` where another process or thread scrapes for too long.
    """
    global _alone
    deadline, scraping = monotonic() + PATIENCE, _scraping  # which another one replaces in a forked child
    try:
        # In here, with no other call before it, since a signal handler may raise as soon as the lock is taken.
        if not scraping.acquire(timeout=PATIENCE):
            raise TimeoutError(f"another thread has been scraping {directory!r} for {PATIENCE:g} s")
        if _alone or sys.platform == "win32":
            yield False
            return
        try:
            file = FileIO(os.path.join(directory, LOCK), "ab")
        except OSError:
            yield False
            return
        with file:
            while not locked_for_process(file):
                if monotonic() > deadline:
                    raise TimeoutError(f"another process has had {file.name!r} locked for {PATIENCE:g} s")
                sleep(0.002)
            _alone = True
            try:
                yield True
            finally:
                _alone = False
    finally:
        with suppress(RuntimeError):  # it isn't taken
            scraping.release()


def locked_for_process(file: FileIO) -> bool:
    """Lock a file as only this process can have it, and no child that is forked meanwhile and outlives it."""
    if sys.platform == "win32":  # pragma: no cover
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def after_fork_in_child() -> None:
    """Forget the scrapes that were under way in the parent."""
    global _scraping, _alone
    _scraping = RLock()
    _alone = False


def counting(directory: str, names: set[str]) -> list[str]:
    """Return the names of those files whose values count: the ones that no fold has in it, as far as they have any."""
    folded = {name for fold, contained in journal(directory).items() if fold in names for name in contained}
    return sorted(name for name in names - folded if name.endswith(".db") and has_values(directory, name))


_told: set[str] = set()
"""What was logged as a warning because it is no file with values."""


def has_values(directory: str, name: str) -> bool:
    """Return whether there is a file with values of that name, and no pipe, link, folder or empty file.

    One that is empty may have values soon: prometheus_client makes its own files so.
    """
    path = os.path.join(directory, name)
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        level = logging.DEBUG if path in _told or stat.S_ISREG(found.st_mode) else logging.WARNING
        _told.add(path)
        logger.log(level, "%r is passed over: it is no file with values; remove it if it stays", path)
        return False
    return True


def journal(directory: str) -> dict[str, list[str]]:
    """Return which files each fold has in it, whether it is there yet or not.

    One that is damaged says nothing. It may have been of use only where a fold had been interrupted.
    """
    try:
        with open(os.path.join(directory, JOURNAL), encoding="utf-8") as file:
            contents: object = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return contents if isinstance(contents, dict) else {}


def fold_dead(directory: str, names: set[str]) -> None:
    """Fold the files of all processes that are gone. Nobody else does so meanwhile.

    ``names`` are what there is in the directory; they are kept up to date at each step.
    """
    written = remove_folded(directory, names)
    counted = counting(directory, names)
    dead: dict[str, list[str]] = {}
    for name in counted:
        if (owned := OWNED.fullmatch(name)) and is_dead(os.path.join(directory, name), int(owned[2])):
            dead.setdefault(owned[1], []).append(name)
    for name in dead.pop(GAUGE_FILES, ()):  # nothing is in progress there any more
        remove(directory, name, names)
    if not dead:
        return
    folds: dict[str, str] = {}
    for kind, gone in dead.items():
        gone += [name for name in counted if (fold := FOLD.fullmatch(name)) and fold[1] == kind]
        name = f"{kind}_llm_common_folded_{token()}.db"
        folds[write_sums(directory, name, gone)] = name
        # What couldn't be removed of earlier folds is in this one now, and they go.
        written[name] = [*gone, *(left for one in gone for left in written.get(one, ()))]
    write_journal(directory, written)
    for unfinished, name in folds.items():
        os.replace(unfinished, os.path.join(directory, name))
        names.add(name)
    remove_folded(directory, names)


def remove_folded(directory: str, names: set[str]) -> dict[str, list[str]]:
    """Remove the files that a fold has in it; return the journal without what is done."""
    before = journal(directory)
    obsolete = {name for name in names if UNFINISHED_FOLD.fullmatch(name)}
    obsolete |= {name for fold in before.keys() & names for name in names.intersection(before[fold])}
    for name in obsolete:
        remove(directory, name, names)
    after = {
        fold: left for fold, contained in before.items() if fold in names and (left := sorted(names & {*contained}))
    }
    if after != before:
        write_journal(directory, after)
    return after


def remove(directory: str, name: str, names: set[str]) -> None:
    """Remove a file, unless it is another user's in a directory where only they may."""
    with suppress(PermissionError):
        os.remove(os.path.join(directory, name))
        names.discard(name)


def write_sums(directory: str, name: str, sources: list[str]) -> str:
    """Write what the values of the files add up to; return where it is, until it gets its ``name``."""
    unfinished = os.path.join(directory, f"{name}.new")
    sums: dict[str, float] = {}
    for source in sources:
        values = MmapedDict.read_all_values_from_file(os.path.join(directory, source))  # type: ignore[no-untyped-call]
        for key, value, _, _ in values:
            sums[key] = sums.get(key, 0.0) + value
    reserve(unfinished, sum(len(key.encode()) + OVERHEAD for key in sums))
    file = MmapedDict(unfinished)  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    return unfinished


OVERHEAD = 32
"""The most that a value takes in a file beside its key, in bytes."""


def reserve(path: str, size: int) -> None:
    """Make a file with so much space for values. Raises :class:`OSError` where the disk is full.

    In a sparse file that is mapped, writing would end the process then, with SIGBUS.
    """
    with open(path, "wb") as file:
        whole = FILE_SIZE
        while whole < size + OVERHEAD:
            whole *= 2
        if hasattr(os, "posix_fallocate"):  # pragma: no branch - absent on macOS
            os.posix_fallocate(file.fileno(), 0, whole)


def write_journal(directory: str, contents: dict[str, list[str]]) -> None:
    """Replace the journal as a whole."""
    path = os.path.join(directory, JOURNAL)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(contents, file)
        file.flush()
        os.fsync(file.fileno())  # so that it isn't empty after the machine failed
    os.replace(f"{path}.new", path)
