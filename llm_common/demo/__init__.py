"""The demo: a small shop with a support bot and a website, whose metrics you watch while it works.

It is an application like any other: it uses the public interface of llm_common and nothing else to track what it does.
The bot searches real text, calls a real HTTP server in the format of OpenAI's chat completions, and meets what such
applications meet: slow answers, faults, and customers who go away. ``llm-common demo`` runs it.
"""
