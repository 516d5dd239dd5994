"""Documents as YAML. It needs the extra ``monitoring``, which those who ask for rules alone do without."""

import yaml


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, one: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", one, style="|" if "\n" in one else None)


Dumper.add_representer(str, _text)


def as_yaml(document: object) -> str:
    """Return a document as YAML, in the order in which it was made."""
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000))
