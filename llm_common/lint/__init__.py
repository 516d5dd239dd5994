"""Checks of source code for what a metric can't see: a name built from user data, a handler that nothing tracks.

Code is read, never imported or run, with the standard library alone. :func:`~llm_common.lint.run.lint` takes files and
returns findings: it parses each file once, collects what it can say about the file alone, and then what only all files
together show. The command is ``llm-common lint``.
"""
