# SPDX-License-Identifier: Apache-2.0
"""Jobs of Microsoft's Philly clusters: timestamp, duration, num_gpus, gpu_time, cluster. Arrivals are not sorted.

Times are local and naive: one hour comes twice where daylight saving ends, and only differences mean anything.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import datetime

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.simulate.engine import Request

COLUMNS = ("timestamp", "duration", "num_gpus", "cluster")


def read(lines: Iterable[str], cluster: str | None = None) -> list[Request]:
    """The jobs in the order of arrival, the first at 0 s; of one virtual cluster, or all. Raises ConfigError."""
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"not a Philly trace: no column {', '.join(missing)}")
    found = []
    for row in reader:
        try:
            if cluster is None or row["cluster"] == cluster:
                moment = datetime.fromisoformat(row["timestamp"])
                work, gpus = float(int(float(row["duration"]))), int(row["num_gpus"])
                if moment.tzinfo is not None:
                    raise ValueError("timestamps have no time zone here")
                if work < 0 or gpus <= 0:
                    raise ValueError("a job takes time and GPUs")
                found.append((moment, gpus, work, row["cluster"]))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"line {reader.line_num}: {error}") from None
    if not found:
        raise ConfigError("no jobs" if cluster is None else f"no jobs of cluster '{cluster}'")
    found.sort(key=lambda one: one[0])
    first = found[0][0]
    return [Request((moment - first).total_seconds(), gpus, work, tenant) for moment, gpus, work, tenant in found]
