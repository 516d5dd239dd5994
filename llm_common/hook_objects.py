"""Backends and plugins as pluggy sees them, checked when they are registered: what would do nothing is an error."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llm_common import hookspecs
from llm_common.errors import PluginError, shown

MARK = f"{hookspecs.PROJECT}_impl"
"""The attribute by which ``@hookimpl`` marks a function; it holds the options that were given."""


class HookObject:
    """A plugin as pluggy sees it: its hook implementations, compared by identity; two equal ones are still two."""

    def __init__(self, wrapped: object, role: str, name: str) -> None:
        """Raise :class:`PluginError` where ``wrapped`` can't be a plugin, since it would do nothing, silently."""
        self.wrapped = wrapped
        self.name = name
        self.described = described = f"{role} {name!r}"
        if isinstance(wrapped, type):
            raise PluginError(f"the {described} is a class; give an instance of it: {wrapped.__name__}()")
        implements = False
        for name in dir(wrapped):
            static = inspect.getattr_static(wrapped, name, None)  # evaluates no property
            function = getattr(static, "__func__", static)
            options = getattr(static, MARK, None) or getattr(function, MARK, None)
            if options is not None:
                self._check_hook(name, options, getattr(wrapped, name))
                setattr(self, name, getattr(wrapped, name))
                implements = True
            elif name.startswith("llm_common_") and inspect.isfunction(function):
                raise PluginError(f"{name} of the {described} isn't marked; write @hookimpl above it")
        if not implements:
            raise PluginError(
                f"the {described} is {shown(wrapped)}, which implements no hook; "
                "a backend has at least a method llm_common_bind_action(self, name), marked with @hookimpl"
            )

    def _check_hook(self, name: str, options: Mapping[str, Any], implementation: Callable[..., object]) -> None:
        """Raise :class:`PluginError`, with the fix, for a hook or an argument of a hook that doesn't exist."""
        hook = options.get("specname") or name
        known = {name: spec for name, spec in vars(hookspecs).items() if name.startswith(f"{hookspecs.PROJECT}_")}
        if hook not in known:
            if not options.get("optionalhook"):
                raise PluginError(f"{name} of the {self.described} is misspelt: {one_of(hook, 'hook', known)}")
            return
        accepted = list(inspect.signature(known[hook]).parameters)
        for argument, parameter in inspect.signature(implementation).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                continue  # which pluggy leaves alone
            if argument not in accepted and parameter.default is parameter.empty:
                raise PluginError(
                    f"{name} of the {self.described} has a wrong argument: {one_of(argument, 'argument', accepted)}"
                )

    def __repr__(self) -> str:
        return self.described


def one_of(name: str, what: str, known: Iterable[str]) -> str:
    """Return in words that there is no ``name``, which there are, and which may be meant."""
    import difflib  # only where something went wrong

    close = difflib.get_close_matches(name, list(known))
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no {what} {name}; {hint}The {what}s are: {', '.join(sorted(known))}"
