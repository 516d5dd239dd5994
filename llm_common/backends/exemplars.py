"""Exemplars: a measurement here and there that tells which trace it belongs to.

A series has a recorder that looks for exemplars only where the configuration has a source of them; all others are as
they are without. The latest exemplar of each counter and of each bucket is kept, and OpenMetrics shows it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from time import time

from prometheus_client.samples import Exemplar, Sample

from llm_common.backends.rendering import escaped, go_number


class Exemplars:
    """The latest exemplars of one series. Each is put into its dictionary in one step, which needs no lock."""

    __slots__ = ("buckets", "counts")

    def __init__(self) -> None:
        self.counts: dict[str, Exemplar] = {}
        """Of the counter, by status."""
        self.buckets: dict[int, Exemplar] = {}
        """Of the duration, by the number of the bucket."""

    def keep(self, labels: Mapping[str, str], status: str, bounds: tuple[float, ...], seconds: float) -> None:
        """Keep what was measured just now."""
        now = time()
        self.counts[status] = Exemplar(dict(labels), 1.0, now)
        self.buckets[bisect_left(bounds, seconds)] = Exemplar(dict(labels), seconds, now)


def written(exemplar: Exemplar) -> str:
    """Return an exemplar as it stands behind a value in OpenMetrics, written as prometheus_client does."""
    labels = ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(exemplar.labels.items()))
    return f" # {{{labels}}} {go_number(exemplar.value)} {exemplar.timestamp}"


def with_bucket_exemplars(lines: str, exemplars: Exemplars) -> str:
    """Return a histogram's ``lines``, its buckets first, with their exemplars."""
    every = lines.split("\n")
    for bucket, exemplar in list(exemplars.buckets.items()):
        every[bucket] += written(exemplar)
    return "\n".join(every)


def with_count_exemplar(line: str, status: str, exemplars: Exemplars) -> str:
    """Return a counter's ``line``, which ends with a newline, with its exemplar if there is one."""
    exemplar = exemplars.counts.get(status)
    return f"{line[:-1]}{written(exemplar)}\n" if exemplar else line


def bucket_samples(samples: Iterator[Sample], exemplars: Exemplars | None) -> Iterator[Sample]:
    """Yield a histogram's samples, its buckets first, with their exemplars."""
    buckets = dict(exemplars.buckets) if exemplars else {}
    for number, sample in enumerate(samples):
        yield sample._replace(exemplar=buckets[number]) if number in buckets else sample


def count_sample(sample: Sample, status: str, exemplars: Exemplars | None) -> Sample:
    """Return a counter's sample with its exemplar if there is one."""
    return sample._replace(exemplar=exemplars.counts.get(status)) if exemplars else sample
