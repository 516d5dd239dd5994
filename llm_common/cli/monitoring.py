"""``llm-common monitoring``: dashboards, rules and alerts as files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from llm_common.cli import needing
from llm_common.errors import ConfigurationError
from llm_common.monitoring.configuration import configured
from llm_common.monitoring.export import Change, ExportError, State, plan, write
from llm_common.monitoring.options import Options
from llm_common.reporting.formats import printable
from llm_common.settings import find_pyproject

monitoring = typer.Typer(
    name="monitoring", help="Dashboards, rules and alerts, made for these metrics.", no_args_is_help=True
)


@monitoring.callback()
def group() -> None:
    """Keep the name of the one command."""


@monitoring.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if it doesn't exist.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="What Prometheus scrapes: host:port, or host:port,app=shop_bot,env=prod. Several times."),
    ] = None,
    chat_id: Annotated[str | None, typer.Option(help="The Telegram chat that alerts go to.")] = None,
    chat: Annotated[
        list[str] | None,
        typer.Option(metavar="APP=ID", help="Another chat for the alerts of one application. Several times."),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            help="Where Alertmanager finds the bot's token. For one before 0.26, what is in it becomes part of the "
            "configuration, readable by you alone.",
            show_default="a secret of the compose file",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="From where on an alert fires. Several times.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SHARE", help="Which share has to be good: actions=0.99, http=0.995. Several times."),
    ] = None,
    alertmanager: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Which Alertmanager it is for.", show_default="0.28")
    ] = None,
    telegram_api: Annotated[str | None, typer.Option(help="The address of a Bot API server of your own.")] = None,
    runbooks: Annotated[
        str | None, typer.Option(metavar="URL", help="Where this documentation is served; alerts link to its runbooks.")
    ] = None,
    recording_rules: Annotated[
        bool | None,
        typer.Option(
            "--recording-rules/--raw", help="Whether dashboards ask for recorded rates, or for the raw series."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite also what was edited.")] = False,
) -> None:
    """Write the whole stack: dashboards, rules, Prometheus, Alertmanager, Grafana, a compose file.

    Options stand in the table tool.llm_common.monitoring of pyproject.toml as well; these here go first. Run again, it
    shows what changed, and keeps every file that was edited. The exit status is 1 where such a file would have to
    change, and 2 where options can't be used or files can't be read or written.
    """
    fix = "llm-common monitoring needs its extra; install it with: pip install 'llm_common[monitoring]'"
    with needing({"grafana_foundation_sdk", "yaml"}, fix):
        from llm_common.monitoring.stack import ALERTMANAGER, stack_files

    given = {
        "targets": target,
        "thresholds": threshold,
        "objectives": objective,
        "chat_id": chat_id,
        "chats": chat,
        "token_file": token_file,
        "alertmanager": alertmanager,
        "telegram_api": telegram_api,
        "runbooks": runbooks,
        "recording_rules": recording_rules,
    }
    try:
        options = configured(find_pyproject(Path.cwd()), given)
        token = token_for(options)
        changes = plan(folder, stack_files(options, token))
        if not dry_run:
            write(folder, changes, force=force, private=frozenset({ALERTMANAGER} if token else ()))
    except (ConfigurationError, ExportError) as problem:
        typer.echo(f"llm-common monitoring export: {problem}", err=True)
        raise typer.Exit(2) from None
    show(changes, folder, options, dry_run=dry_run, force=force)
    raise typer.Exit(1 if not force and any(one.state is State.CONFLICT for one in changes) else 0)


def token_for(options: Options) -> str:
    """Return the bot's token where the configuration has to have it in it, else an empty text.

    Raises :class:`ConfigurationError` where the file can't be read or has no token in it.
    """
    if options.reads_token_file or not (options.chat_id or options.chats):
        return ""
    version = "{}.{}".format(*options.alertmanager)
    fix = f"Alertmanager {version} can't read the bot's token by itself, so that the export has to"
    try:
        token = Path(options.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise ConfigurationError(f"--token-file {options.token_file} can't be read: {reason}; {fix}") from None
    if len(token.split()) != 1:
        raise ConfigurationError(
            f"--token-file {options.token_file} has no token in it: one line, as BotFather gave it"
        )
    return token


def show(changes: list[Change], folder: Path, options: Options, *, dry_run: bool, force: bool) -> None:
    """Print the diffs, what became of each file, and what is left to do."""
    console = Console(soft_wrap=True, highlight=False)
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for change in changes:
        for line in change.diff.splitlines():
            colour = colours.get(line[:1], "default")
            console.print(f"[{colour}]{escape(printable(line))}[/{colour}]")
    for change in changes:
        if change.state is not State.UNCHANGED:
            console.print(escape(f"{words(change.state, dry_run=dry_run, force=force):12} {folder / change.path}"))
    states = [one.state for one in changes]
    unchanged = states.count(State.UNCHANGED)
    console.print(f"{len(states)} files, {unchanged} of them unchanged" + (", nothing written" if dry_run else ""))
    if State.CONFLICT in states and not force:
        console.print("Files that were edited stay as they are. To have them overwritten: --force")
    if not options.chat_id and not options.chats:
        console.print("No chat is set: alerts reach Telegram once you export with --chat-id.")


def words(state: State, *, dry_run: bool, force: bool) -> str:
    """Return what became of a file, or would become of it."""
    if state in {State.EDITED, State.CONFLICT}:
        state_words = "overwritten" if force else "kept, edited"
        return f"would be {state_words}" if dry_run and force else state_words
    return f"would be {state}" if dry_run else str(state)
