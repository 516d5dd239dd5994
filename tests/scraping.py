"""Reading a scrape back with prometheus_client's own parser."""

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
Scrape = Callable[[], dict[Series, float]]


def parsed(text: str) -> dict[Series, float]:
    """Return each series of a scrape with its value, as prometheus_client's own parser reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def series(name: str, /, **labels: str) -> Series:
    """Return the key of a series in what a scrape was parsed to."""
    return name, tuple(sorted(labels.items()))
