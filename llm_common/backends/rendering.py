"""Writing families of the catalogue in the exposition formats, many times faster than sample by sample.

A store yields :class:`PreparedFamily` objects to the registry. To prometheus_client they are families like any other;
to :func:`render` they bring their text, written from one template per series. The text is, byte for byte, what
``generate_latest`` would write for the same values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from prometheus_client import utils
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Sample

from llm_common.catalog import METRICS, Metric

Format = Literal["text", "openmetrics"]
Encode = Callable[[Any], bytes]

go_number: Callable[[float], str] = utils.floatToGoString
"""Writes a number as prometheus_client does, and so as Go does."""

PLAIN_BELOW = 1_000_000
"""Whole numbers below this are written with ``.0`` behind them; from here on prometheus_client writes exponents."""

EOF = b"# EOF\n"


class PreparedFamily(Family):
    """A family whose text and samples are made only when somebody asks for the one or the other."""

    def __init__(
        self, metric: Metric, text: Callable[[Format], Iterable[str]], samples: Callable[[], list[Sample]]
    ) -> None:
        self._metric = metric
        self._text = text
        self._prepare = samples
        super().__init__(metric.family, metric.help, metric.kind.value)

    @property
    def samples(self) -> list[Sample]:
        """The samples, as every exposition of prometheus_client reads them."""
        return self._prepare()

    @samples.setter
    def samples(self, value: list[Sample]) -> None:
        """Take no notice: the base class begins with an empty list."""

    def text(self, form: Format) -> str:
        """Return the family as it stands on a scrape."""
        return "".join((header(self._metric, form), *self._text(form)))


class Families:
    """What prometheus_client's encoders take for a registry: some families."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self._families


def empty_families() -> Iterator[Family]:
    """Yield every family of the catalogue without samples."""
    for metric in METRICS:
        yield Family(metric.family, metric.help, metric.kind.value)


def header(metric: Metric, form: Format) -> str:
    """Return the comment lines above a family, as prometheus_client writes them."""
    empty = Families([Family(metric.family, metric.help, metric.kind.value)])
    if form == "text":
        return generate_latest(empty).decode()
    return generate_openmetrics(empty).removesuffix(EOF).decode()  # type: ignore[no-untyped-call, no-any-return]


def escaped(label: str) -> str:
    """Return a label's value as it stands between quotes on a scrape."""
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def quoted(label: str) -> str:
    """Return a label's value as it stands between the quotes of a template."""
    return escaped(label).replace("%", "%%")


def placeholder(*others: str) -> str:
    """Return a label's value to split a template at: one that occurs in none of the ``others``."""
    found = "<>"
    while any(found in other for other in others):
        found = f"<{found}>"
    return found


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """Return the labels of a series in braces, sorted by name as prometheus_client does, for use in a template."""
    pairs = sorted(zip(names, values, strict=True))
    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in pairs) + "}"


def counter_template(metric: Metric, values: Sequence[str]) -> str:
    """Return the template of a counter's series: one line with a place for its value."""
    return f"{metric.name}{labelled(metric.labels, values)} %s\n"


def histogram_template(metric: Metric, values: Sequence[str], bounds: Sequence[float], number: str = "%d.0") -> str:
    """Return the template of a histogram's series: a line for each bucket, the count, the sum.

    ``number`` is the place of a whole number: ``%d.0``, which is the fastest, or ``%s`` for text.
    """
    names = (*metric.labels, "le")
    lines = [
        f"{metric.name}_bucket{labelled(names, (*values, go_number(bound)))} {number}\n"
        for bound in (*bounds, float("inf"))
    ]
    labels = labelled(metric.labels, values)
    return "".join([*lines, f"{metric.name}_count{labels} {number}\n", f"{metric.name}_sum{labels} %s\n"])


def render(registry: Any, encode: Encode, form: Format) -> bytes:
    """Return the scrape of ``registry``: prepared families from their templates, all others by ``encode``."""
    return b"".join(_parts(registry, encode, form))


def _parts(registry: Any, encode: Encode, form: Format) -> Iterator[bytes]:
    others: list[Family] = []
    for family in registry.collect():
        if isinstance(family, PreparedFamily):
            yield encode(Families(others)).removesuffix(EOF)
            others = []
            yield family.text(form).encode()
        else:
            others.append(family)
    yield encode(Families(others))  # ends with what the format ends with
