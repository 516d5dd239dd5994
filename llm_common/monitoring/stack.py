"""The files of an export: what Prometheus, Alertmanager, Grafana and a compose file are given."""

from importlib import resources
from shlex import quote
from string import Template
from typing import Any

from llm_common.monitoring.alertmanager import TEMPLATE, alertmanager_file, telegram_template
from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.options import TOKEN_FILE, Options
from llm_common.monitoring.rules import alert_rules_file, recording_rules_file
from llm_common.monitoring.yaml_text import as_yaml

IMAGES = {
    "prometheus": "prom/prometheus:v3.5.0",
    "alertmanager": "prom/alertmanager:v{major}.{minor}.0",
    "grafana": "grafana/grafana:11.6.0",
}
"""What the compose file runs."""

JOB = "llm_common"
"""The label ``job`` of what is scraped."""

DATASOURCE = "llm_common_prometheus"
"""The uid of Grafana's data source."""

SECRET = "telegram_token"  # noqa: S105 - the name of a file
"""The file, beside the others, that has the bot's token: a secret of the compose file."""

ALERTMANAGER = "alertmanager/alertmanager.yml"
"""The file that has the token in it where Alertmanager can't read it from a file."""

SCRAPE_EVERY = "15s"

FIRST_STEP = """\
1. Put the token of your Telegram bot into the file `{file}`{here}, and let nobody else read it:

        (umask 077 && cat > {quoted})    # paste it, Enter, Ctrl-D
"""
FIRST_STEP_BEFORE_0_26 = """\
1. `alertmanager/alertmanager.yml` has the token of your Telegram bot in it, since Alertmanager before 0.26 can't read
   it from a file: let nobody else read that file, and commit it nowhere.
"""
FIRST_STEP_BEFORE_0_26_WITHOUT_CHAT = """\
1. Put the token of your Telegram bot into a file that nobody else may read, and export again with `--chat-id` and
   `--token-file`: Alertmanager before 0.26 can't read it by itself.
"""
HOST = "host.docker.internal"
THIS_MACHINE = (
    f"`{HOST}` is the machine that the containers run on: there, the application has to listen on more than 127.0.0.1."
)
NO_CHAT = (
    "**No chat is set yet**, so that alerts only show in Alertmanager: export again with `--chat-id`. Write to your "
    "bot, then ask the Bot API's `getUpdates` for the number of the chat; a group's is negative."
)


def stack_files(options: Options, token: str = "") -> dict[str, str]:
    """Return the text of every file of the stack, by its path in the folder.

    ``token`` is the bot's token, for an Alertmanager that can't read it from a file.
    """
    files = {
        "README.md": readme(options),
        "compose.yml": compose_file(options),
        ".gitignore": f"/{SECRET}\n" + ("/alertmanager/alertmanager.yml\n" if token else ""),
        "prometheus/prometheus.yml": prometheus_file(options),
        "prometheus/rules/recording.yml": recording_rules_file(),
        "prometheus/rules/alerts.yml": alert_rules_file(options),
        ALERTMANAGER: alertmanager_file(options, token),
        f"alertmanager/{TEMPLATE}": telegram_template(),
        "grafana/provisioning/datasources/llm_common.yml": datasource_file(),
        "grafana/provisioning/dashboards/llm_common.yml": dashboard_provider_file(),
    }
    files |= {f"grafana/dashboards/{name}": text for name, text in dashboard_files(options).items()}
    return dict(sorted(files.items()))


def prometheus_file(options: Options) -> str:
    """Return Prometheus' configuration: what is scraped, the rules, and who is told of alerts."""
    return as_yaml(
        {
            "global": {"scrape_interval": SCRAPE_EVERY, "evaluation_interval": SCRAPE_EVERY},
            "rule_files": ["rules/*.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
            "scrape_configs": [
                {
                    "job_name": JOB,
                    # The application's own labels app and env stay what they are where the target has such labels too.
                    "honor_labels": True,
                    "static_configs": [
                        {"targets": [target.address]} | ({"labels": dict(target.labels)} if target.labels else {})
                        for target in options.targets
                    ],
                }
            ],
        }
    )


def datasource_file() -> str:
    """Return what tells Grafana of Prometheus."""
    prometheus = {
        "name": "Prometheus",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "jsonData": {"timeInterval": SCRAPE_EVERY, "httpMethod": "POST"},
    }
    return as_yaml({"apiVersion": 1, "datasources": [prometheus]})


def dashboard_provider_file() -> str:
    """Return what tells Grafana of the dashboards."""
    provider = {
        "name": "llm_common",
        "folder": "llm_common",
        "type": "file",
        "options": {"path": "/var/lib/grafana/dashboards"},
    }
    return as_yaml({"apiVersion": 1, "providers": [provider]})


def compose_file(options: Options) -> str:
    """Return a compose file: Prometheus, Alertmanager, Grafana, and the application by a profile."""
    major, minor = options.alertmanager
    from_file = options.reads_token_file
    # A file of one's own is where it is for those who run Alertmanager without compose. With one $, a variable follows.
    own_file = "" if options.token_file == TOKEN_FILE else options.token_file.replace("$", "$$")
    alertmanager: dict[str, Any] = {
        "image": IMAGES["alertmanager"].format(major=major, minor=minor),
        # A file that is for its owner alone keeps its owner in the container, where the image's own user can't read it.
        "user": "root",
        "command": ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"],
        "volumes": ["./alertmanager:/etc/alertmanager:ro", "alertmanager:/alertmanager"],
        "ports": ["127.0.0.1:9093:9093"],
        "restart": "unless-stopped",
    }
    if from_file:
        alertmanager["secrets"] = [{"source": SECRET, "target": own_file} if own_file else SECRET]
    services = {
        "prometheus": {
            "image": IMAGES["prometheus"],
            "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
            "extra_hosts": [f"{HOST}:host-gateway"],
            "ports": ["127.0.0.1:9090:9090"],
            "restart": "unless-stopped",
        },
        "alertmanager": alertmanager,
        "grafana": {
            "image": IMAGES["grafana"],
            "volumes": [
                "./grafana/provisioning:/etc/grafana/provisioning:ro",
                "./grafana/dashboards:/var/lib/grafana/dashboards:ro",
                "grafana:/var/lib/grafana",
            ],
            "ports": ["127.0.0.1:3000:3000"],
            "restart": "unless-stopped",
        },
        "app": {
            "image": "${APP_IMAGE:-app}",
            "profiles": ["app"],
            "environment": {"LLM_COMMON_ENV": "${LLM_COMMON_ENV:-dev}"},
            "restart": "unless-stopped",
        },
    }
    document: dict[str, Any] = {"services": services}
    document["volumes"] = {"prometheus": {}, "alertmanager": {}, "grafana": {}}
    if from_file:
        document["secrets"] = {SECRET: {"file": own_file or f"./{SECRET}"}}
    return as_yaml(document)


def readme(options: Options) -> str:
    """Return what the folder says of itself."""
    template = resources.files("llm_common.monitoring").joinpath("stack.md").read_text(encoding="utf-8")
    return Template(template).substitute(
        token=_first_step(options),
        targets=_targets(options),
        chat=_chats(options),
    )


def _targets(options: Options) -> str:
    scraped = f"Prometheus scrapes {', '.join(f'`{target.address}`' for target in options.targets)}."
    return f"{scraped} {THIS_MACHINE}" if any(HOST in target.address for target in options.targets) else scraped


def _first_step(options: Options) -> str:
    if not options.reads_token_file:
        return FIRST_STEP_BEFORE_0_26 if options.chat_id or options.chats else FIRST_STEP_BEFORE_0_26_WITHOUT_CHAT
    if options.token_file == TOKEN_FILE:
        return FIRST_STEP.format(file=SECRET, quoted=SECRET, here=" here")
    return FIRST_STEP.format(file=options.token_file, quoted=quote(options.token_file), here="")


def _chats(options: Options) -> str:
    told = [f"what `{app}` has to the chat {chat}" for app, chat in options.chats]
    if options.chat_id:
        told.append(f"everything{' else' if told else ''} to the chat {options.chat_id}")
    return f"Alerts go to Telegram: {', '.join(told)}." if told else NO_CHAT
