"""The command line ``llm-common``. It needs the extra ``cli``; importing this package doesn't."""

import sys

NEEDED = ("typer", "rich")
FIX = "llm-common needs its command line extra; install it with: pip install 'llm_common[cli]'"


def main() -> None:
    """Run the command line with the arguments of this process, and exit.

    Where the extra is missing, prints how to install it and exits with status 1.
    """
    try:
        from llm_common.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in NEEDED:
            raise  # a broken installation of something else: the traceback says of what
        sys.stderr.write(f"{FIX}\n")
        raise SystemExit(1) from None
    app()
