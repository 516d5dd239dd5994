"""The backend that records nothing: it binds nothing, so there is nothing to call and nothing to test for."""

from llm_common.hookspecs import hookimpl
from llm_common.settings import Settings


class NoopBackend:
    """A backend that binds nothing."""

    @hookimpl
    def llm_common_shutdown(self) -> None:
        """Do nothing: there is nothing to flush."""


@hookimpl
def llm_common_create_backend(name: str, settings: Settings) -> NoopBackend | None:
    """Create the backend ``noop``."""
    return NoopBackend() if name == "noop" else None
