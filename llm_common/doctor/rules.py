"""What the doctor looks for, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llm_common.reporting.rules import Rule, rule


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the doctor looks at."""

    rule: Rule
    fine: str
    """What the report says where nothing is wrong."""


def check(code: str, summary: str, fine: str, why: str, wrong: str, right: str, *, warning: bool = False) -> Check:
    """Return a check whose texts were written indented."""
    return Check(rule(code, summary, why, wrong, right, warning=warning), fine)


ALL = [
    check(
        "DR101",
        "settings that can't be read",
        "the settings can be read",
        """One line is logged where the application starts, and it runs without any metrics; in strict mode it doesn't
        start.""",
        "LLM_COMMON_MAX_SERIES=many",
        "LLM_COMMON_MAX_SERIES=500",
    ),
    check(
        "DR102",
        "a variable LLM_COMMON_… that nothing reads",
        "every variable LLM_COMMON_… is a setting",
        "A misspelt variable changes nothing, and no one says so: the setting keeps its default.",
        "LLM_COMMON_MAX_SERIE=500",
        "LLM_COMMON_MAX_SERIES=500",
        warning=True,
    ),
    check(
        "DR103",
        "an app that nothing has named",
        "app has a name",
        """Without a name the label is that of the main script, which under a server is the server's: all applications
        that it runs are one on dashboards.""",
        'genapp_action_count_total{app="gunicorn",…}',
        "LLM_COMMON_APP=shop_bot",
        warning=True,
    ),
    check(
        "DR104",
        "an env that is missing or unknown",
        "env is one of dev, preprod, prod",
        """Who looks for `prod`, on a dashboard or in a rule of their own, never sees an application that says
        `production`, or nothing, which is `dev`.""",
        "LLM_COMMON_ENV=production",
        "LLM_COMMON_ENV=prod",
        warning=True,
    ),
    check(
        "DR201",
        "a backend or plugin that can't be loaded",
        "every backend and plugin can be loaded",
        """The application runs without metrics. Each name that is configured is imported here, as the application does
        it; so call the doctor in the application's own virtual environment.""",
        "LLM_COMMON_BACKENDS=promtheus",
        "LLM_COMMON_BACKENDS=prometheus",
    ),
    check(
        "DR202",
        "distributions that don't fit together",
        "the versions of the package, its plugins and what they need fit",
        "A plugin that was made for another version may record nothing, or fail only where it is used.",
        "llm_common 0.1.0 with a plugin that needs llm_common>=0.2",
        "pip install --upgrade llm_common llm-common-opentelemetry",
    ),
    check(
        "DR203",
        "an extra that is missing for what is configured",
        "no extra is missing for what is configured",
        "The command that the table is for can't run here.",
        "a table [tool.llm_common.monitoring] without the extra monitoring",
        "pip install 'llm_common[monitoring]'",
        warning=True,
    ),
    check(
        "DR204",
        "two that write the same metrics into one registry",
        "one backend alone writes into the registry",
        """The second of them is refused, and metrics are off; or the page has each series twice, and Prometheus refuses
        the page.""",
        """
        Counter("genapp_action_count_total", …)  # of the older package
        configure()
        """,
        "configure()",
    ),
    check(
        "DR301",
        "several workers without PROMETHEUS_MULTIPROC_DIR",
        "there is one process, or a directory that sums over all",
        """Each worker counts for itself, and a scrape reaches any one of them: counters jump up and down, and every
        rate is wrong. From outside it shows in answers of different processes to the same address.""",
        "gunicorn --workers 2 shop:app",
        "PROMETHEUS_MULTIPROC_DIR=/run/shop gunicorn --workers 2 shop:app",
    ),
    check(
        "DR302",
        "a PROMETHEUS_MULTIPROC_DIR that was set too late",
        "PROMETHEUS_MULTIPROC_DIR was set in time, or not at all",
        """prometheus_client looks at the variable once, when it is first imported. Set after that, it does nothing.
        Only the process itself can tell: call `llm_common.doctor.run.examine()` there.""",
        """
        import prometheus_client
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/run/shop"
        """,
        "PROMETHEUS_MULTIPROC_DIR=/run/shop python shop.py",
    ),
    check(
        "DR303",
        "a PROMETHEUS_MULTIPROC_DIR that is no directory",
        "the directory exists",
        "Metrics are off, since there is nowhere to write them. Nothing makes the directory.",
        "PROMETHEUS_MULTIPROC_DIR=/run/shpo",
        "mkdir /run/shop; PROMETHEUS_MULTIPROC_DIR=/run/shop",
    ),
    check(
        "DR304",
        "a PROMETHEUS_MULTIPROC_DIR that can't be written to",
        "the directory can be written to",
        "Metrics are off, since there is nowhere to write them.",
        "PROMETHEUS_MULTIPROC_DIR=/proc",
        "PROMETHEUS_MULTIPROC_DIR=/run/shop",
    ),
    check(
        "DR305",
        "a PROMETHEUS_MULTIPROC_DIR on a network file system",
        "the directory is on a local file system",
        """Every measurement is a write into a mapped file: over a network it is slow, and may fail with SIGBUS, which
        ends the process. Processes of several machines also have the same numbers.""",
        "PROMETHEUS_MULTIPROC_DIR=/mnt/nfs/shop",
        "PROMETHEUS_MULTIPROC_DIR=/run/shop",
        warning=True,
    ),
    check(
        "DR306",
        "files of an earlier run in PROMETHEUS_MULTIPROC_DIR",
        "no file is left over from an earlier run",
        """What an earlier run counted is added to what this one counts, and each scrape reads it. Files of workers that
        died since the application started are right: their counts have to stay.""",
        "gunicorn --workers 2 shop:app",
        "rm -f /run/shop/*.db; gunicorn --workers 2 shop:app",
        warning=True,
    ),
    check(
        "DR401",
        "a target that can't be looked at",
        "the target can be looked at",
        "Nothing else of it was looked at. Prometheus has `up` 0 for such a page.",
        "llm-common doctor http://127.0.0.1:8000/metrisc",
        "llm-common doctor http://127.0.0.1:8000/metrics",
    ),
    check(
        "DR402",
        "a page that takes long",
        "the page comes quickly",
        """Prometheus gives up after its `scrape_timeout`, 10 seconds by default, and then has no metrics at all. Pages
        are slow because they are large: because a name or a path is built from data.""",
        'action_tracking(f"order_{number}")',
        'action_tracking("order_handler")',
        warning=True,
    ),
    check(
        "DR403",
        "a page that holds up other requests",
        "other requests don't wait while the page is made",
        """Where the page is made in the event loop, or by the only worker, everyone waits for it. It is measured where
        the page takes a quarter of a second or more, with requests for a path that doesn't exist.""",
        """
        async def metrics(request):
            return Response(generate_latest())
        """,
        'app.mount("/metrics", metrics_asgi_app())',
        warning=True,
    ),
    check(
        "DR404",
        "clocks that differ",
        "the server's clock is that of this machine",
        """What compares a time on the page with that of Prometheus is wrong by the difference, such as how long a
        process has run.""",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "timedatectl set-ntp true",
        warning=True,
    ),
    check(
        "DR405",
        "a process that starts in the future",
        "no process started in the future",
        "The clock was set back after the process had started: how long it has run is negative.",
        "process_start_time_seconds 4.1e+09",
        "process_start_time_seconds 1.7e+09",
        warning=True,
    ),
    check(
        "DR406",
        "a page that isn't what the contract says",
        "the page is what the contract says",
        """Names, types, labels, values, bounds and series that are there twice are looked at as `llm-common check` does
        it, whose code the message has: `llm-common check --explain MC503` says more. What is a warning there is one
        here.""",
        'genapp_action_count_total{nmae="menu_handler",…} 1.0',
        'genapp_action_count_total{name="menu_handler",…} 1.0',
    ),
]

CHECKS: Mapping[str, Check] = MappingProxyType({one.rule.code: one for one in ALL})
"""Each check by its code, in order."""

RULES: Mapping[str, Rule] = MappingProxyType({code: one.rule for code, one in CHECKS.items()})
"""What there is to say about each."""

ALWAYS = frozenset({"DR401"})
"""What ``select`` doesn't take out: that nothing was looked at must not look like something without findings."""
