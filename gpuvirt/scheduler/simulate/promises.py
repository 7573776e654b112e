# SPDX-License-Identifier: Apache-2.0
"""What came of a run of jobs on hosts, in figures. Parts of 1, seconds.

kept         job-hours of a tier in which the part of its time that a job had, over the window, was what is promised.
             Hours count in which its guarantee was taken on; `admitted`: for which part of the tier's jobs it was.
allocation   part of all GPU time that jobs had while any job waited
lost         part of it in which they made no progress: being put on GPUs, or taken off
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gpuvirt.scheduler.simulate.cluster import Outcome
from gpuvirt.scheduler.state import TIERS, Rules


def figures(outcome: Outcome, gpus: int, rules: Rules) -> dict[str, Any]:
    """One row."""
    given = waited = 0.0
    for (begin, used, _, waiting), (end, _, _, _) in pairwise(outcome.curve):
        if waiting:
            given += used / 1000 * (end - begin)
            waited += end - begin
    whole = outcome.curve[-1][0] - outcome.curve[0][0] if outcome.curve else 0.0
    row: dict[str, Any] = {
        "allocation": given / (gpus * waited) if waited else None,
        "someone_waited": waited / whole if whole else 0.0,
        "lost": outcome.lost / (gpus * whole) if whole else 0.0,
        "ended": len(outcome.ended),
        "live": len(outcome.live),
        "plans": outcome.plans,
        "actions": dict(sorted(outcome.counts.items())),
    }
    for tier in TIERS:
        promises = [one for one in outcome.promises.values() if one.tier == tier]
        lived = sum(one.lived for one in promises)
        if rules.fractions.get(tier, 0.0) > 0:
            row[f"{tier}_kept"] = sum(one.kept for one in promises) / lived if lived else None
            row[f"{tier}_hours"] = lived / 3600
            row[f"{tier}_admitted"] = sum(one.guaranteed for one in promises) / len(promises) if promises else None
    return row
