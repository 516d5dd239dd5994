"""What ``/proc`` says of processes: their variables, commands, parents, and when they started."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path, PurePath

PROC = Path("/proc")


def variables_of(number: int) -> dict[str, str]:
    """Return the variables that a process was started with. Raises :class:`OSError`."""
    pairs = os.fsdecode((PROC / str(number) / "environ").read_bytes()).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def command_of(number: int) -> list[str]:
    """Return the command line of a process. Raises :class:`OSError`."""
    return os.fsdecode((PROC / str(number) / "cmdline").read_bytes()).rstrip("\0").split("\0")


def parent_of(number: int) -> int:
    """Return the number of the parent of a process. Raises :class:`OSError`."""
    return int(_fields(number)[1])


def start_of(number: int) -> float:
    """Return when a process started, as a Unix time that is right to a second. Raises :class:`OSError`."""
    booted = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime"))
    return float(booted.split()[1]) + int(_fields(number)[19]) / os.sysconf("SC_CLK_TCK")


def _fields(number: int) -> list[str]:
    # The name of the program comes first, in brackets, and may have anything in it.
    return (PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def children_of(number: int) -> Iterator[int]:
    """Yield the processes whose parent this is."""
    for entry in PROC.iterdir():
        with suppress(OSError):  # it ended meanwhile
            if entry.name.isdecimal() and parent_of(int(entry.name)) == number:
                yield int(entry.name)


def alive(number: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it runs, as another user; or it is no number of a process
        return True
    return True


def workers(number: int) -> int:
    """Return how many processes share the work of a process, as far as it shows. Raises :class:`OSError`.

    They have the same command, and one of them is the parent of the others; or the command says how many there are.
    """
    command, parent = command_of(number), parent_of(number)
    same_as_parent = False
    with suppress(OSError):  # process 1 and those of other users can't be looked at
        same_as_parent = command_of(parent) == command
    forked = 0
    for child in children_of(parent if same_as_parent else number):
        with suppress(OSError):
            forked += command_of(child) == command
    return max(forked, named_workers(command))


def named_workers(command: Sequence[str]) -> int:
    """Return how many workers a command line asks for, or 0 where it doesn't say."""
    if not any(PurePath(word).name == "celery" for word in command):
        number = _value(command, "--workers", "-w")
    elif _value(command, "--pool", "-P") in {"", "prefork", "processes"}:
        number = _value(command, "--concurrency", "-c")
    else:  # threads of one process
        number = ""
    return int(number) if number.isdecimal() else 0


def _value(command: Sequence[str], long: str, short: str) -> str:
    """Return what an option is given at last, or nothing where it isn't there."""
    found = ""
    for word, following in pairwise([*command, ""]):
        name, _, value = word.partition("=")
        if word in {long, short}:
            found = following
        elif name == long:
            found = value
        elif word.startswith(short):
            found = word.removeprefix(short)
    return found


def configured_workers(variables: Mapping[str, str]) -> int:
    """Return how many workers the variables of servers ask for, or 0 where none says."""
    try:
        gunicorn = shlex.split(variables.get("GUNICORN_CMD_ARGS", ""))
    except ValueError:  # a quote that isn't closed; gunicorn refuses it as well
        gunicorn = []
    numbers = [variables.get(name, "") for name in ("WEB_CONCURRENCY", "UVICORN_WORKERS")]
    return max(named_workers(gunicorn), *(int(one) if one.isdecimal() else 0 for one in numbers))
