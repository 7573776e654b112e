# SPDX-License-Identifier: Apache-2.0
"""Which guarantees are taken on: never more than the hosts that are there can keep. PURE."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import ceil

from gpuvirt.scheduler.decide.promise import WANTS
from gpuvirt.scheduler.state import Job, Node, NodeState, Rules

COUNTS = frozenset({NodeState.READY, NodeState.UNKNOWN})  # a silent host may be back in a moment


def admit(jobs: Iterable[Job], nodes: Iterable[Node], rules: Rules) -> dict[str, bool]:
    """Whose guarantee is kept or taken on (True), or is not (False), where that is not as it was.

    In the order of arrival, those that have theirs first: when a host is lost, the last lose it. A guarantee of a job
    that may use some types of GPU only must fit in these, together with all others that may use nothing else.
    """
    ledger = Guarantees(nodes)
    found: dict[str, bool] = {}
    wishes = [job for job in jobs if rules.fractions.get(job.spec.tier, 0.0) > 0 and job.phase in WANTS]
    for job in sorted(wishes, key=lambda job: (not job.guaranteed, job.submitted, job.id)):
        taken = ledger.take(job, rules)
        if taken != job.guaranteed:
            found[job.id] = taken
    return found


class Guarantees:
    """GPU time that is promised, by the set of types that it may come from and the size of what it is promised to.

    A member of four GPUs cannot use one on each of four hosts. So for each size there are so many places for members
    as large, and what is promised to smaller ones takes whole places of it, rounded up: they are moved together.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._hosts: list[Counter[str]] = [
            Counter(gpu.type for gpu in node.gpus if gpu.healthy) for node in nodes if node.state in COUNTS
        ]
        self._types = frozenset(kind for host in self._hosts for kind in host)
        self._promised: dict[tuple[frozenset[str], int], float] = defaultdict(float)  # members at a time
        self._places: dict[tuple[frozenset[str], int], int] = {}

    def take(self, job: Job, rules: Rules) -> bool:
        """Takes a guarantee on if there is room for it."""
        demand = job.spec.demand
        types = frozenset(kind for kind in self._types if not demand.gpu_types or kind in demand.gpu_types)
        if not demand.gpus or not types:
            return not demand.gpus
        key = (types, demand.gpus * demand.gpu_thousandths)
        self._promised[key] += rules.fractions[job.spec.tier] * job.spec.members_min
        sets = {types | other for other, _ in self._promised} | {self._types}
        if all(self._fits(one, rules.promise_limit) for one in sets if types <= one):
            return True
        self._promised[key] -= rules.fractions[job.spec.tier] * job.spec.members_min
        return False

    def _fits(self, types: frozenset[str], limit: float) -> bool:
        inside = [(size, count) for (kinds, size), count in self._promised.items() if kinds <= types and count > 0]
        for place in {size for size, _ in inside}:
            large = sum(count * -(-size // place) for size, count in inside if size >= place)
            small = sum(count * size for size, count in inside if size < place) / place
            there = self._places_of(types, place)
            if large > 1e-6 and large / limit + ceil(small / limit - 1e-6) > there + 1e-6:
                return False
        return True

    def _places_of(self, types: frozenset[str], size: int) -> int:
        """How many members of a size (thousandths) the hosts hold."""
        if (types, size) not in self._places:
            counts = [sum(host[kind] for kind in types) for host in self._hosts]
            self._places[types, size] = sum(
                count * (1000 // size) if size < 1000 else 1000 * count // size for count in counts
            )
        return self._places[types, size]
