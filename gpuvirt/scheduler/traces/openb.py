# SPDX-License-Identifier: Apache-2.0
"""Reads the openb traces (Alibaba's GPU cluster of 2023): nodes, and what pods ask for. PURE: lines come from outside.

Times, phases and qos are left out: the placement benchmark uses none of them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.draws import Draws
from gpuvirt.scheduler.model import Demand, Node, requested_milli

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")


def nodes(lines: Iterable[str]) -> list[Node]:
    """The nodes of a node list, in its order. Raises ConfigError."""
    reader = _reader(lines, NODE_COLUMNS)
    found = []
    for row in reader:
        try:
            found.append(
                Node(row["sn"], int(row["cpu_milli"]), int(row["memory_mib"]), int(row["gpu"]), row["model"] or "")
            )
        except (TypeError, ValueError, ConfigError) as error:
            raise ConfigError(f"line {reader.line_num}: {error}") from None
    return found


def demands(lines: Iterable[str]) -> list[Demand]:
    """What the pods of a pod list ask for, in its order. Raises ConfigError."""
    reader = _reader(lines, POD_COLUMNS)
    found = []
    for row in reader:
        try:
            gpus = int(row["num_gpu"])
            models = frozenset(filter(None, (row.get("gpu_spec") or "").split("|")))
            milli = int(row["gpu_milli"]) if gpus else 0
            found.append(Demand(int(row["cpu_milli"]), int(row["memory_mib"]), gpus, milli, models))
        except (TypeError, ValueError, ConfigError) as error:
            raise ConfigError(f"line {reader.line_num}: {error}") from None
    return found


def stretched(pods: list[Demand], capacity_milli: int, ratio: float, generator: Draws) -> list[Demand]:
    """A shuffled list, lengthened by draws until its requests come to `ratio` of the capacity.

    The draws stay at the end. They stop at the first whose `gpu_milli` (of one GPU) goes beyond, as in FGD's simulator;
    a list that is too long at first loses random pods until it is not.
    """
    limit = ratio * capacity_milli
    found = list(pods)
    generator.shuffle(found)
    total = requested_milli(found)
    while total > limit:
        total -= found.pop().total_milli
    while any(pod.gpus for pod in pods):
        one = generator.choice(pods)
        if total + one.gpu_milli > limit:
            break
        found.append(one)
        total += one.total_milli
    return found


def _reader(lines: Iterable[str], columns: tuple[str, ...]) -> csv.DictReader[str]:
    reader = csv.DictReader(lines)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"not an openb list: no column {', '.join(missing)}")
    return reader
