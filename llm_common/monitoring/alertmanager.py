"""What Alertmanager is given: who hears of which alerts, when, and which go without saying beside others."""

from importlib import resources
from typing import Any

from llm_common.errors import ConfigurationError
from llm_common.monitoring.alerts import CRITICAL, WARNING, alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import quoted

TEMPLATE = "telegram.tmpl"
"""What the file of :func:`telegram_template` is called, beside the configuration."""
FAST, SLOWLY = "BurnsFast", "BurnsSlowly"
"""How the alerts about an error budget end, the one of which makes the other superfluous."""


def alertmanager_file(options: Options, token: str = "") -> str:
    """Return the text of ``alertmanager.yml``.

    Alertmanager reads the bot's token from ``options.token_file``. Before version 0.26 it can't: then ``token`` becomes
    part of the text, which nobody else may be able to read. Without a chat, alerts are shown by Alertmanager alone.
    Raises :class:`~llm_common.errors.ConfigurationError` where the token is needed and missing.
    """
    from llm_common.monitoring.yaml_text import as_yaml

    chats = dict(options.chats)
    secret = {"bot_token_file": options.token_file}
    if not options.reads_token_file:
        secret = {"bot_token": token}
        if not token and (options.chat_id or chats):
            raise ConfigurationError(
                f"Alertmanager {'.'.join(map(str, options.alertmanager))} can't read the bot's token from a file: "
                "give the token, or use Alertmanager 0.26 or newer"
            )
    content = {
        "global": {"telegram_api_url": options.telegram_api},
        "templates": [TEMPLATE],
        "route": {
            "receiver": _receiver_of(),
            "group_by": ["alertname", "env", "app"],
            "group_wait": "1m",  # so that what fails together is told of together
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [
                *(
                    {"matchers": [f"app={quoted(app)}"], "receiver": _receiver_of(app), "routes": [_critical()]}
                    for app in chats
                ),
                _critical(),
            ],
        },
        "inhibit_rules": _inhibitions(options),
        "receivers": [
            {"name": _receiver_of(app), "telegram_configs": [_telegram(chat, secret)] if chat else []}
            for app, chat in {"": options.chat_id, **chats}.items()
        ],
    }
    return as_yaml(content)


def telegram_template() -> str:
    """Return the template of the message: HTML that Telegram accepts, whatever labels and annotations contain."""
    return resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")


def _receiver_of(app: str = "") -> str:
    return f"telegram: {app}" if app else "telegram"


def _critical() -> dict[str, Any]:
    return {
        "matchers": [f'severity="{CRITICAL}"'],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "1h",
    }


def _telegram(chat: int, secret: dict[str, str]) -> dict[str, Any]:
    return {
        **secret,
        "chat_id": chat,
        "parse_mode": "HTML",
        "message": '{{ template "llm_common.telegram" . }}',
        "send_resolved": True,
    }


def _inhibitions(options: Options) -> list[dict[str, Any]]:
    every = alerts(options)
    silences = "|".join(one.name for one in every if one.silence)
    return [
        *(
            _inhibition(f'alertname="{one.name}"', f'alertname="{one.name.replace(FAST, SLOWLY)}"', "env", "app")
            for one in every
            if one.name.endswith(FAST)
        ),
        _inhibition(
            f'severity="{CRITICAL}"',
            f'severity="{WARNING}"',
            *("alertname", "env", "app", "name", "app_type", "resource", "instance"),
        ),
        # Where an application isn't scraped, nothing is known of what it does.
        _inhibition('alertname="TargetDown"', f'alertname=~"{silences}"', "env", "app"),
    ]


def _inhibition(source: str, target: str, *equal: str) -> dict[str, Any]:
    return {"source_matchers": [source], "target_matchers": [target], "equal": list(equal)}
