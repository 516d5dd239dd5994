"""Checks, without a server, that dashboards, rules and exposed metrics name what the catalogue has.

Expressions are parsed by ``promql-parser``. What they are compared with is a :class:`~.vocabulary.Vocabulary`, which is
made from the catalogue as data.
"""
