# SPDX-License-Identifier: Apache-2.0
"""Metrics as text: the exposition format of Prometheus, version 0.0.4.

Names are `gpuvirt_...` in base units (seconds, bytes); what only grows is a counter and ends in `_total`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
PREFIX = "gpuvirt_"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Buckets:
    """The sample of a histogram: how many were at most each bound, then all others; and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]  # one more than bounds
    total: float


@dataclass(frozen=True)
class Family:
    """One metric with all its samples."""

    name: str
    kind: str  # COUNTER, GAUGE or HISTOGRAM
    help: str
    samples: list[tuple[Labels, float | Buckets]] = field(default_factory=list)

    def add(self, value: float | Buckets, **labels: str) -> None:
        """One more sample."""
        self.samples.append((labels, value))


def render(families: Iterable[Family]) -> str:
    """The text of all families that have samples, in their order.

    Raises ValueError for what Prometheus would refuse or a dashboard could not use: a name outside the rules above, two
    families of one name, two samples with the same labels, a pid as a label (a series for each process that ever was).
    """
    return "".join(rendered(families))


def rendered(families: Iterable[Family]) -> Iterator[str]:
    """The same, family by family."""
    seen: set[str] = set()
    for family in families:
        _check(family, seen)
        seen.add(family.name)
        if not family.samples:
            continue
        lines = [f"# HELP {family.name} {_escape(family.help)}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            lines += _lines(family.name, labels, value)
        yield "".join(f"{line}\n" for line in lines)


def _check(family: Family, seen: set[str]) -> None:
    name = family.name
    if not name.startswith(PREFIX) or not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a name of a gpuvirt metric")
    if name in seen:
        raise ValueError(f"{name} is there twice")
    if family.kind not in (COUNTER, GAUGE, HISTOGRAM) or (family.kind == COUNTER) != name.endswith("_total"):
        raise ValueError(f"{name} is a {family.kind}: counters, and only they, end in _total")
    if not family.help:
        raise ValueError(f"{name} has no help")
    known: set[tuple[tuple[str, str], ...]] = set()
    for labels, value in family.samples:
        key = tuple(sorted(labels.items()))
        if key in known:
            raise ValueError(f"{name} has two samples with {dict(labels)}")
        known.add(key)
        if any(not _NAME.fullmatch(label) or label in ("pid", "le", "quantile") for label in labels):
            raise ValueError(f"{name} has a label that it must not have: {sorted(labels)}")
        if isinstance(value, Buckets) != (family.kind == HISTOGRAM):
            raise ValueError(f"{name} is a {family.kind} and has {value!r}")
        if isinstance(value, Buckets):
            _check_buckets(name, value)
        elif family.kind == COUNTER and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} counts {value}")


def _check_buckets(name: str, value: Buckets) -> None:
    bounds, counts = list(value.bounds), list(value.counts)
    if len(counts) != len(bounds) + 1 or bounds != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
        raise ValueError(f"{name} has buckets that do not go up: {bounds} with {len(counts)} counts")
    if any(count < 0 for count in counts) or not (math.isfinite(value.total) and value.total >= 0):
        raise ValueError(f"{name} counts {counts} with the sum {value.total}")


def _lines(name: str, labels: Labels, value: float | Buckets) -> list[str]:
    if not isinstance(value, Buckets):
        return [f"{name}{_labels(labels)} {_number(value)}"]
    lines, seen = [], 0
    for bound, count in zip([*value.bounds, math.inf], value.counts, strict=True):
        seen += count
        lines.append(f"{name}_bucket{_labels({**labels, 'le': _number(float(bound))})} {seen}")
    return [*lines, f"{name}_sum{_labels(labels)} {_number(value.total)}", f"{name}_count{_labels(labels)} {seen}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_quote(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, int):  # True and False, too
        return str(int(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def families(rows: Sequence[tuple[str, str, str]]) -> dict[str, Family]:
    """Empty families from (name without the prefix, kind, help), by that name."""
    return {name: Family(PREFIX + name, kind, text) for name, kind, text in rows}
