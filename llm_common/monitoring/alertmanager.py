"""What Alertmanager is given: who hears of which alerts, when, and which go without saying beside others."""

from importlib import resources
from typing import Any

from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import quoted

TEMPLATE = "telegram.tmpl"
"""What the file of :func:`telegram_template` is called, beside the configuration."""


def alertmanager_file(options: Options, token: str = "") -> str:
    """Return the text of ``alertmanager.yml``.

    Alertmanager reads the bot's token from ``options.token_file``. Before version 0.26 it can't: then ``token`` becomes
    part of the text, which nobody else may be able to read. Without a chat, alerts are shown by Alertmanager alone.
    Raises :class:`ValueError` where the token is needed and missing.
    """
    import yaml

    secret = {"bot_token_file": options.token_file}
    if not options.reads_token_file:
        secret = {"bot_token": token}
        if not token and (options.chat_id or options.chats):
            raise ValueError(
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
                    for app, _ in options.chats
                ),
                _critical(),
            ],
        },
        "inhibit_rules": _inhibitions(),
        "receivers": [
            {"name": _receiver_of(app), "telegram_configs": [_telegram(chat, secret)] if chat else []}
            for app, chat in (("", options.chat_id), *options.chats)
        ],
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def telegram_template() -> str:
    """Return the template of the message: HTML that Telegram accepts, whatever labels and annotations contain."""
    return resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")


def _receiver_of(app: str = "") -> str:
    return f"telegram: {app}" if app else "telegram"


def _critical() -> dict[str, Any]:
    return {
        "matchers": ['severity="critical"'],
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


def _inhibitions() -> list[dict[str, Any]]:
    return [
        *(
            _inhibition(f'alertname="{kind}BudgetBurnsFast"', f'alertname="{kind}BudgetBurnsSlowly"', "env", "app")
            for kind in ("Action", "Http")
        ),
        _inhibition(
            'severity="critical"',
            'severity="warning"',
            "alertname",
            "env",
            "app",
            "name",
            "app_type",
            "resource",
            "instance",
        ),
        # Where an application isn't scraped, nothing is known of what it does.
        _inhibition('alertname="TargetDown"', 'alertname=~"TaskStopped|HandlerTrafficVanished"', "env", "app"),
    ]


def _inhibition(source: str, target: str, *equal: str) -> dict[str, Any]:
    return {"source_matchers": [source], "target_matchers": [target], "equal": list(equal)}
