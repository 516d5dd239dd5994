"""What a team decides about its dashboards and alerts: targets, thresholds, objectives, where alerts go."""

from dataclasses import dataclass, field, fields
from math import isfinite

from llm_common.errors import ConfigurationError

TOKEN_FILE = "/run/secrets/telegram_token"  # noqa: S105 - a path
"""Where a service of a compose file finds its secret."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on an alert fires. Shares are between 0 and 1, durations in seconds, rates per minute."""

    min_per_minute: float = 1.0
    """Shares and quantiles of less traffic than this are not judged: one failure of two calls is no 50 %."""
    action_error_share: float = 0.05
    """Share of an action's runs that fail."""
    handler_seconds: float = 5.0
    """95th percentile of a handler's duration."""
    task_seconds: float = 3600.0
    """95th percentile of a task's duration."""
    llm_call_seconds: float = 60.0
    """95th percentile of an LLM call's duration."""
    agent_seconds: float = 300.0
    """95th percentile of an agent run's duration."""
    agent_cancelled_share: float = 0.3
    """Share of an agent's runs that are cancelled."""
    http_error_share: float = 0.05
    """Share of the served requests that are answered with a status of 500 or more."""
    http_seconds: float = 3.0
    """95th percentile of the duration of served requests."""
    dependency_failed_share: float = 0.5
    """Share of the requests to a dependency that fail: a status of 500 or more, a time-out, no answer at all."""

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            (_check_share if name.endswith("_share") else _check_number)(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Objectives:
    """The share of events that have to be good over 30 days; what is missing to 1 is the error budget."""

    actions: float = 0.99
    """Actions that don't end in an error, per application."""
    http: float = 0.995
    """Served requests that are answered with a status below 500, per application."""

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            _check_share(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Target:
    """Where Prometheus scrapes, and labels of the target itself (``up``), such as ``app`` and ``env``."""

    address: str
    """``host:port``; the path is ``/metrics``."""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides what an export contains."""

    targets: tuple[Target, ...] = (Target("host.docker.internal:8000"),)
    thresholds: Thresholds = field(default_factory=Thresholds)
    objectives: Objectives = field(default_factory=Objectives)
    chat_id: int = 0
    """The Telegram chat that alerts are sent to; groups have negative numbers. 0 where it isn't known yet."""
    chats: tuple[tuple[str, int], ...] = ()
    """Applications whose alerts go to a chat of their own, by the label ``app``, and that chat."""
    token_file: str = TOKEN_FILE
    """Where Alertmanager finds the bot's token, read anew for each message; by default a compose secret."""
    alertmanager: tuple[int, int] = (0, 28)
    """The version of Alertmanager: from 0.26 on it reads the bot's token from a file."""
    telegram_api: str = "https://api.telegram.org"
    """The Bot API server; another one where a local server stands in between."""
    runbooks: str = ""
    """Where the documentation is served; alerts link to its runbooks if this is set."""
    recording_rules: bool = True
    """Whether dashboards ask for what the recording rules made; else for the raw series."""

    @property
    def reads_token_file(self) -> bool:
        """Whether that Alertmanager reads the bot's token from a file; else its configuration has to have the token."""
        return self.alertmanager >= (0, 26)


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ConfigurationError(f"{name} is {share!r}; accepted: a share between 0 and 1, both excluded, such as 0.95")


def _check_number(name: str, number: float) -> None:
    if not (number > 0 and isfinite(number)):
        raise ConfigurationError(f"{name} is {number!r}; accepted: a number above 0")
