"""The exceptions that llm_common raises, as one tree.

::

    LLMCommonError
    ├── ConfigurationError(ValueError)     a setting can't be read, or names nothing that exists
    │   └── UnknownBackendError            no such backend or plugin
    ├── PluginError                        a plugin or backend can't be loaded or honours no contract
    └── TrackingError(ValueError)          a tracker was used wrongly (raised in strict mode, else logged once)

A wrong *type* (a name that isn't a string, a decorator without parentheses) is a plain :class:`TypeError`, and an empty
name a plain :class:`ValueError`, both raised where the mistake stands. The exceptions of a tracked block are never
wrapped in any of these.
"""


class LLMCommonError(Exception):
    """Base of every exception defined by llm_common."""


class ConfigurationError(LLMCommonError, ValueError):
    """A setting can't be read. The message names the value, where it came from and what is accepted."""


class UnknownBackendError(ConfigurationError):
    """A backend or plugin of that name isn't available. The message lists those that are."""


class PluginError(LLMCommonError):
    """A plugin or backend can't be loaded, or what it returned isn't what the contract asks for."""


class TrackingError(LLMCommonError, ValueError):
    """A tracker was used wrongly: an impossible size, a failure declared after the end."""


def shown(value: object) -> str:
    """Return ``value`` as a message shows it: not too long, and whatever its ``repr`` may raise."""
    try:
        return f"{value!r:.100}"
    except Exception:
        return f"a {type(value).__name__} that can't be shown"
