"""The command line ``llm-common``. It needs the extra ``cli``; importing this package doesn't."""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def needing(modules: Collection[str], problem: str) -> Iterator[None]:
    """Let a ``with`` block import what is missing where an extra is.

    Where one of ``modules`` is missing, prints ``problem``, which says how to install them, and exits with status 1.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in modules:
            raise  # a broken installation of something else: the traceback says of what
        sys.stderr.write(f"{problem}\n")
        raise SystemExit(1) from None


def main() -> None:
    """Run the command line with the arguments of this process, and exit.

    Where the extra is missing, prints how to install it and exits with status 1.
    """
    fix = "llm-common needs its command line extra; install it with: pip install 'llm_common[cli]'"
    with needing({"typer", "rich"}, fix):
        from llm_common.cli.app import app
    app()
