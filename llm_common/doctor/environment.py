"""What is wrong with an environment: settings, plugins, versions, and the directory for several processes."""

import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY

from llm_common import plugins
from llm_common.backends.prometheus import MULTIPROC_DIR, multiprocess, store_of
from llm_common.doctor import processes
from llm_common.errors import ConfigurationError, LLMCommonError
from llm_common.hook_objects import HookObject
from llm_common.reporting.rules import hint
from llm_common.settings import READERS, TABLE, Pyproject, Settings, environment_variable, find_pyproject, resolve


class Problem(NamedTuple):
    """One thing that is wrong."""

    message: str
    """What is wrong, without a full stop."""
    fix: str
    """What to do about it, as an order."""
    warning: bool | None = None
    """Whether it may well be right; ``None`` for what the rule says."""


Problems = Iterator[Problem]

ENVS = ("dev", "preprod", "prod")
"""The usual values of ``env``."""

TOOLS = frozenset(
    [
        "__main__",
        "__mp_main__",
        "celery",
        "dramatiq",
        "flask",
        "granian",
        "gunicorn",
        "hypercorn",
        "ipykernel_launcher",
        "manage",
        "pytest",
        "python",
        "rq",
        "uvicorn",
        "waitress",
        "waitress-serve",
    ]
)
"""Main scripts that run applications and are none."""

NEEDED_BY_TABLES = {"monitoring": ("grafana_foundation_sdk", "promql_parser", "yaml")}
"""What the commands need that have a table in pyproject.toml, beside the extra ``cli``."""

NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "drvfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    ]
)
NETWORK_FUSE = frozenset({"fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "fuse.gcsfuse", "fuse.ceph-fuse"})
"""File systems that are on another machine."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What an application finds where it starts."""

    shown: str
    variables: Mapping[str, str]
    settings: Settings | None = None
    """Those in force, or ``None`` where they can't be read."""
    problem: str = ""
    """Why they can't be."""
    pyproject: Pyproject | None = None
    pid: int | None = None
    """The process that has it, if there is one."""
    inside: bool = False
    """Whether that is this very process."""
    same_installation: bool = True
    """Whether its packages are those that are importable here."""

    @property
    def shared(self) -> str | None:
        """The directory for several processes; ``None`` where the Prometheus backend isn't among the backends."""
        named = [getattr(one, "name", one) for one in self.settings.backends] if self.settings else ["prometheus"]
        return self.variables.get(MULTIPROC_DIR, "") if "prometheus" in named else None


def here() -> Environment:
    """Return the environment that a process gets which is started here."""
    with suppress(OSError):  # the working directory was deleted
        return read("this environment", os.environ, Path.cwd())
    return read("this environment", os.environ, None)


def inside(settings: Settings | None) -> Environment:
    """Return the environment of this very process, with the settings that its ``configure()`` returned."""
    found = replace(here(), shown="this process", pid=os.getpid(), inside=True)
    return replace(found, settings=settings, problem="") if settings else found


def of_process(number: int) -> Environment:
    """Return the environment that a process was started with. Raises :class:`OSError`."""
    variables = processes.variables_of(number)
    directory = Path(os.readlink(processes.PROC / str(number) / "cwd"))
    if shared := variables.get(MULTIPROC_DIR):
        variables = {**variables, MULTIPROC_DIR: str(directory / shared)}  # a relative one is relative to its own
    found = read(f"process {number}", variables, directory, number)
    program = shutil.which(processes.command_of(number)[0], path=variables.get("PATH"))
    # The link of a virtual environment tells it from others, and not the program that it leads to.
    return replace(found, same_installation=os.path.dirname(program or "") == os.path.dirname(sys.executable))


def read(shown: str, variables: Mapping[str, str], directory: Path | None, pid: int | None = None) -> Environment:
    """Return an environment with the settings that follow from it."""
    pyproject = None
    try:
        pyproject = find_pyproject(directory) if directory else None
        return Environment(shown, variables, resolve({}, variables, pyproject), "", pyproject, pid)
    except ConfigurationError as problem:
        return Environment(shown, variables, None, str(problem), pyproject, pid)


def unreadable_settings(at: Environment) -> Problems:
    """Look for settings that can't be read (DR101)."""
    if at.problem:
        yield Problem(at.problem, "mend it, or take it out")


def unknown_variables(at: Environment) -> Problems:
    """Look for a variable LLM_COMMON_… that nothing reads (DR102)."""
    known = [environment_variable(name) for name in READERS]
    for name in sorted(at.variables):
        if name.upper().startswith("LLM_COMMON_") and name not in known:
            yield Problem(f"nothing reads the variable {name}{hint(name.upper(), known)}", "mend its name, or unset it")


def unnamed_app(at: Environment) -> Problems | None:
    """Look for an app that nothing has named (DR103)."""
    if at.settings is None:
        return None
    if at.settings.source("app") == "the main module's name":
        return iter([Problem("nothing sets app, so that it is the name of the main script", f"set {APP_VARIABLE}")])
    return app_named_after_tool(at.settings.app)


APP_VARIABLE = environment_variable("app")
ENV_VARIABLE = environment_variable("env")


def app_named_after_tool(app: str) -> Problems:
    """Look for an app that nothing has named (DR103, for a name that is known)."""
    if app in TOOLS:
        yield Problem(f"app is {app!r}, which is what runs the application", f"set {APP_VARIABLE} to a name of its own")


def unknown_env(at: Environment) -> Problems | None:
    """Look for an env that is missing or unknown (DR104)."""
    if at.settings is None:
        return None
    if at.settings.source("env") == "the default":
        return iter([Problem(f"nothing sets env, so that it is {at.settings.env!r}", f"set {ENV_VARIABLE}")])
    return env_outside(at.settings.env)


def env_outside(env: str) -> Problems:
    """Look for an env that is missing or unknown (DR104, for a value that is known)."""
    if env not in ENVS:
        meant = hint(env.lower()[:7], ENVS)  # of production, product is nearer to prod
        yield Problem(f"env is {env!r}{meant}", f"set {ENV_VARIABLE} to one of {', '.join(ENVS)}")


def unloadable(at: Environment) -> Problems | None:
    """Look for a backend or plugin that can't be loaded (DR201)."""
    return _unloadable(at.settings) if at.settings and at.same_installation else None


def _unloadable(settings: Settings) -> Problems:
    for role, names in (("backend", settings.backends), ("plugin", settings.plugins)):
        for name in names:
            if isinstance(name, str):
                try:
                    with redirect_stdout(sys.stderr):  # the report alone goes to the standard output
                        loaded = plugins.load(name, role, settings.source(f"{role}s"))
                    HookObject(loaded, role, name)
                except LLMCommonError as problem:
                    yield Problem(str(problem).rstrip("."), f"install what is missing, or take {name!r} out")
                except Exception as problem:
                    yield Problem(f"the {role} {name!r} can't be used: {type(problem).__name__}: {problem}", "mend it")


def unfit_versions(at: Environment) -> Problems | None:
    """Look for distributions that don't fit together (DR202)."""
    return _unfit_versions() if at.same_installation else None


def _unfit_versions() -> Problems:
    found = {point.dist.name: point.dist for point in entry_points(group=plugins.GROUP) if point.dist}
    with suppress(PackageNotFoundError):  # run from a source tree
        found["llm_common"] = distribution("llm_common")
    for one in found.values():
        for requirement in one.requires or ():
            if "extra" not in requirement.partition(";")[2]:
                yield from unmet(one, requirement.partition(";")[0])


COMPARE = {">=": ge, "<=": le, "==": eq, "!=": ne, ">": gt, "<": lt}


def unmet(needing: Distribution, requirement: str) -> Problems:
    """Yield why a requirement of a distribution isn't met, as far as the numbers of releases say it."""
    name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
    by = f"{needing.name} {needing.version} needs {' '.join(requirement.split())}"
    try:
        installed = distribution(name).version
    except PackageNotFoundError:
        yield Problem(f"{by}, which isn't installed", f"pip install {name}")
        return
    for comparison, wanted in re.findall(r"(>=|<=|==|!=|>|<)\s*([\d.]+)(?![\d.*])", requirement):
        if not COMPARE[comparison](release(installed), release(wanted)):
            yield Problem(f"{by}, and {installed} is installed", f"pip install --upgrade {needing.name} {name}")
            return


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without zeros at the end; of 1.2.0rc1, 1 and 2."""
    numbers = [int(one) for one in re.match(r"[\d.]*", version)[0].split(".") if one]  # type: ignore[index]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def missing_extras(at: Environment) -> Problems | None:
    """Look for an extra that is missing for what is configured (DR203)."""
    return _missing_extras(at.pyproject.table if at.pyproject else {}) if at.same_installation else None


def _missing_extras(configured: Mapping[str, object]) -> Problems:
    for table, modules in NEEDED_BY_TABLES.items():
        missing = [one for one in modules if table in configured and find_spec(one) is None]
        if missing:
            message = f"there is a table [{TABLE}.{table}], and {', '.join(missing)} can't be imported"
            yield Problem(message, f"pip install 'llm_common[{table}]'")


def two_writers(at: Environment) -> Problems | None:
    """Look for two that write the same metrics into one registry (DR204)."""
    return _two_writers(at, at.settings) if at.settings else None


def _two_writers(at: Environment, settings: Settings) -> Problems:
    exporters = [one.strip() for one in at.variables.get("OTEL_METRICS_EXPORTER", "").lower().split(",")]
    both = "prometheus" in settings.backends and "opentelemetry" in settings.backends
    if both and "prometheus" in exporters:
        yield Problem(
            "the backends prometheus and opentelemetry both write into prometheus_client's registry: "
            "OTEL_METRICS_EXPORTER has prometheus",
            "take one of the two backends out, or let OTEL_METRICS_EXPORTER be otlp",
        )
    if at.inside and "prometheus" in settings.backends and not broken_directory(at):
        try:
            store_of(REGISTRY, settings.buckets)  # as configure() does it
        except ConfigurationError as problem:
            yield Problem(str(problem), "let one alone define them")


def unshared_workers(at: Environment) -> Problems | None:
    """Look for several workers without PROMETHEUS_MULTIPROC_DIR (DR301)."""
    return None if at.shared is None else _unshared_workers(at)


def _unshared_workers(at: Environment) -> Problems:
    workers = processes.configured_workers(at.variables)
    if at.pid is not None:
        with suppress(OSError):  # there is no /proc, or it says nothing
            workers = max(workers, processes.workers(at.pid))
    if workers > 1 and not at.shared:
        yield Problem(
            f"there are {workers} workers, and {MULTIPROC_DIR} isn't set",
            f"set {MULTIPROC_DIR} to an empty directory before they start, or start one worker",
        )


def set_too_late(at: Environment) -> Problems | None:
    """Look for a PROMETHEUS_MULTIPROC_DIR that was set too late (DR302)."""
    return _set_too_late(at) if at.inside else None


def _set_too_late(at: Environment) -> Problems:
    if at.variables.get(MULTIPROC_DIR) and not multiprocess():
        yield Problem(
            f"{MULTIPROC_DIR} is set, but it wasn't yet when prometheus_client was imported",
            "set it where the process is started, or before the first import",
        )


def broken_directory(at: Environment) -> list[Problem]:
    """Look for a PROMETHEUS_MULTIPROC_DIR that is no directory (DR303)."""
    if at.shared and not os.path.isdir(at.shared):
        message = f"{MULTIPROC_DIR} is {at.shared!r}, which is no directory"
        return [Problem(message, "create it, empty, before the processes start")]
    return []


def no_directory(at: Environment) -> Problems | None:
    """Look for a PROMETHEUS_MULTIPROC_DIR that is no directory (DR303, where the variable is set)."""
    return iter(broken_directory(at)) if at.shared else None


def unwritable_directory(at: Environment) -> Problems | None:
    """Look for a PROMETHEUS_MULTIPROC_DIR that can't be written to (DR304)."""
    return _unwritable(at.shared) if at.shared and os.path.isdir(at.shared) else None


def _unwritable(directory: str) -> Problems:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as problem:
        message = f"{directory!r} can't be written to: {problem.strerror}"
        yield Problem(message, f"give the application's user the directory, or set {MULTIPROC_DIR} to another")


def remote_directory(at: Environment) -> Problems | None:
    """Look for a PROMETHEUS_MULTIPROC_DIR on a network file system (DR305)."""
    if not (at.shared and os.path.isdir(at.shared)):
        return None
    try:
        mounts = (processes.PROC / "self" / "mountinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return None
    return remote(at.shared, mounts)


def remote(directory: str, mounts: str) -> Problems:
    """Yield whether a directory is on a network file system, by the text of ``/proc/self/mountinfo``."""
    path = os.path.join(os.path.realpath(directory), "")
    longest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = os.path.join(before.split()[4].replace("\\040", " "), "")
        if path.startswith(point) and len(point) >= len(longest):  # the last one hides those before
            longest, kind = point, after.split()[0]
    if kind in NETWORK | NETWORK_FUSE:
        yield Problem(
            f"{directory!r} is on the network file system {kind}", f"set {MULTIPROC_DIR} to a local directory"
        )


def leftovers(at: Environment) -> Problems | None:
    """Look for files of an earlier run in PROMETHEUS_MULTIPROC_DIR (DR306)."""
    return _leftovers(at.shared) if at.shared and os.path.isdir(at.shared) else None


def _leftovers(directory: str) -> Problems:
    files: dict[str, list[os.stat_result]] = defaultdict(list)
    for entry in listed(directory):
        if found := FILE_NAME.search(entry.name):
            with suppress(OSError):  # it went away meanwhile
                files[found[1]].append(entry.stat())
    living = {number for number in files if number.isdecimal() and processes.alive(int(number))}
    began = min((run_began(int(number)) for number in living), default=sys.float_info.max)
    old = [
        one for number, those in files.items() if number not in living for one in those if one.st_mtime < began - SLACK
    ]
    if old:
        hours = (time.time() - min(one.st_mtime for one in old)) / 3600
        yield Problem(
            f"{directory!r} has {len(old):,} file{'s' * (len(old) > 1)} of processes of an earlier run, with "
            f"{sum(one.st_size for one in old):,} bytes; nothing was written to the oldest for {hours:,.1f} hours",
            "empty the directory each time before the processes start",
        )


def listed(directory: str) -> list[os.DirEntry[str]]:
    """Return what is in a directory; nothing where it can't be listed, which DR304 reports."""
    try:
        return list(os.scandir(directory))
    except OSError:
        return []


FILE_NAME = re.compile(r"_(\d+|folded)(?:_[0-9a-f]+)?(?:_unlocked)?\.db$")
"""How files are named: by the number of their process, or as the sum over those that are gone."""

SLACK = 2.0
"""By how many seconds the start of a process may be told wrongly."""


def run_began(number: int) -> float:
    """Return when the run began that a process is of: when it started, or its parent, if that is the same program."""
    try:
        parent = processes.parent_of(number)
        begun = processes.start_of(number)
    except OSError:  # nobody knows; then it could have begun at any time
        return 0.0
    with suppress(OSError):
        if processes.command_of(parent) == processes.command_of(number) or processes.named_workers(
            processes.command_of(parent)
        ):
            return min(begun, processes.start_of(parent))
    return begun


LOOKS = {
    "DR101": unreadable_settings,
    "DR102": unknown_variables,
    "DR103": unnamed_app,
    "DR104": unknown_env,
    "DR201": unloadable,
    "DR202": unfit_versions,
    "DR203": missing_extras,
    "DR204": two_writers,
    "DR301": unshared_workers,
    "DR302": set_too_late,
    "DR303": no_directory,
    "DR304": unwritable_directory,
    "DR305": remote_directory,
    "DR306": leftovers,
}
"""What each check asks of an environment; where it can't be asked, the answer is ``None``."""
