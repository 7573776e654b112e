# SPDX-License-Identifier: Apache-2.0
"""Metrics as text: the exposition format of Prometheus, version 0.0.4.

Names are `gpuvirt_...` in base units (seconds, bytes); what only grows is a counter and ends in `_total`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE = "counter", "gauge"
PREFIX = "gpuvirt_"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One metric with all its samples."""

    name: str
    kind: str  # COUNTER or GAUGE
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """One more sample."""
        self.samples.append((labels, value))


def render(families: Iterable[Family]) -> str:
    """The text of all families that have samples, in their order.

    Raises ValueError for what Prometheus would refuse or a dashboard could not use: a name outside the rules above, two
    families of one name, two samples with the same labels, a pid as a label (a series for each process that ever was).
    """
    lines: list[str] = []
    seen: set[str] = set()
    for family in families:
        _check(family, seen)
        seen.add(family.name)
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "".join(f"{line}\n" for line in lines)


def _check(family: Family, seen: set[str]) -> None:
    name = family.name
    if not name.startswith(PREFIX) or not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a name of a gpuvirt metric")
    if name in seen:
        raise ValueError(f"{name} is there twice")
    if family.kind not in (COUNTER, GAUGE) or (family.kind == COUNTER) != name.endswith("_total"):
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
        if family.kind == COUNTER and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} counts {value}")


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
