# SPDX-License-Identifier: Apache-2.0
"""Lengths of kernels and pauses, drawn by chance: the same seed draws the same.

A scenario writes "200us", or one of

    { exponential = "200us" }                         the mean
    { lognormal = "200us", sigma = 0.5 }              the mean; sigma of the logarithm
    { uniform = ["100us", "300us"] }
    { choice = ["100us", "5ms"], chances = [9, 1] }   equal chances without them
    { values = ["100us", "200us", "5ms"] }            in this order, again and again: what was measured once
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from gpuvirt.errors import ConfigError, UsageError
from gpuvirt.units import parse_duration

Draw = Callable[[], int]
KINDS = {"exponential": set(), "lognormal": {"sigma"}, "uniform": set(), "choice": {"chances"}, "values": set()}  # type: dict[str, set[str]]


def duration(text: object, place: str) -> int:
    """Nanoseconds of "20ms"; "0" and "0s" are 0. Raises ConfigError naming the place."""
    if not isinstance(text, str):
        raise ConfigError(f"{place}: '{text}' is not a duration", "write for example 20ms or 2s")
    if text.strip() in ("0", "0s", "0ms", "0us", "0ns"):
        return 0
    try:
        return parse_duration(text)
    except UsageError as error:
        raise ConfigError(f"{place}: {error.message}", error.hint) from None


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long something lasts. `values`: its parameters (ns), by kind."""

    kind: str
    values: tuple[int, ...]
    numbers: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The expected length, ns."""
        if self.kind == "choice":
            return sum(map(_times, self.values, self.numbers)) / sum(self.numbers)
        return sum(self.values) / len(self.values)

    def draw(self, random: Random) -> Draw:
        """What draws the next one (ns, at least 1 if the mean is more than 0)."""
        first, last = self.values[0], self.values[-1]
        if self.kind == "fixed":
            return lambda: first
        if self.kind == "exponential":
            return lambda: max(1, round(random.expovariate(1 / first)))
        if self.kind == "lognormal":
            sigma = self.numbers[0]
            mu = math.log(first) - sigma * sigma / 2
            return lambda: max(1, round(random.lognormvariate(mu, sigma)))
        if self.kind == "uniform":
            return lambda: random.randint(first, last)
        if self.kind == "choice":
            return lambda: random.choices(self.values, self.numbers)[0]
        again: Iterator[int] = itertools.cycle(self.values)
        return lambda: next(again)


def _times(value: int, chance: float) -> float:
    return value * chance


def lengths(given: Any, place: str) -> Lengths:
    """What a scenario says. Raises ConfigError naming the place."""
    if isinstance(given, str):
        return Lengths("fixed", (duration(given, place),))
    kinds = [kind for kind in KINDS if isinstance(given, dict) and kind in given]
    if len(kinds) != 1:
        raise ConfigError(f"{place}: not a length", f"write for example 200us, or a table with one of {_names()}")
    kind = kinds[0]
    unknown = set(given) - {kind} - KINDS[kind]
    if unknown:
        raise ConfigError(
            f"{place}: {kind} has no '{min(unknown)}'", f"known: {', '.join([kind, *sorted(KINDS[kind])])}"
        )
    several = kind in ("uniform", "choice", "values")
    texts = given[kind] if several else [given[kind]]
    if not isinstance(texts, list) or not texts or (kind == "uniform" and len(texts) != 2):
        raise ConfigError(f"{place}: {kind} needs {'two lengths' if kind == 'uniform' else 'a list of lengths'}")
    values = tuple(duration(text, place) for text in texts)
    if kind in ("exponential", "lognormal") and values[0] <= 0:
        raise ConfigError(f"{place}: the mean of {kind} must be more than 0")
    if kind == "uniform" and values[0] > values[1]:
        raise ConfigError(f"{place}: uniform goes from the smaller to the larger")
    return Lengths(kind, values, _numbers(given, kind, len(values), place))


def _numbers(given: dict[str, Any], kind: str, count: int, place: str) -> tuple[float, ...]:
    if kind == "lognormal":
        sigma = given.get("sigma", 0.5)
        if not isinstance(sigma, int | float) or not 0 <= sigma <= 5:
            raise ConfigError(f"{place}: sigma must be between 0 and 5")
        return (float(sigma),)
    if kind == "choice":
        chances = given.get("chances", [1] * count)
        good = isinstance(chances, list) and all(isinstance(one, int | float) and one >= 0 for one in chances)
        if not good or len(chances) != count or sum(chances) <= 0:
            raise ConfigError(f"{place}: chances must be {count} numbers, not all 0")
        return tuple(map(float, chances))
    return ()


def _names() -> str:
    return ", ".join(KINDS)
