# SPDX-License-Identifier: Apache-2.0
"""Jobs on hosts on a simulated clock, with the scheduler's own decisions: decide() as the service calls it.

Time goes from one thing that happens to the next: a job arrives or ends, hosts have carried out what was decided, or
the plan said when to decide again. What is commanded takes as long as Rules say: a job that takes the place of another
begins when that one has left, and makes no progress before. PURE but for the clock that is simulated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from gpuvirt.scheduler.actions import Grow, Move, Requeue, Resume, Shrink, Start, Suspend
from gpuvirt.scheduler.changes import decided, ended, settled
from gpuvirt.scheduler.decide import decide
from gpuvirt.scheduler.decide.promise import counted, promised, totals, with_guarantee
from gpuvirt.scheduler.decide.room import living
from gpuvirt.scheduler.state import ENDED, Job, Node, Phase, Queue, Rules, Served, Snapshot, Spec

COMING, LEAVING = frozenset({Phase.STARTING, Phase.RESUMING}), frozenset({Phase.SUSPENDING, Phase.STOPPING})


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job of a trace. `work`: seconds that it runs with the fewest members that it needs."""

    at: float
    spec: Spec
    work: float


@dataclass(slots=True)
class Attained:
    """What a job has had of its promise, sampled while it lives."""

    tier: str
    guaranteed: bool = True
    lived: float = 0.0  # s that it lived with its promise taken on, in samples
    kept: float = 0.0  # of these, in which the part that it had in the window was at least what is promised


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    ended: list[Job] = field(default_factory=list)
    live: dict[str, Job] = field(default_factory=dict)  # at the end of the run
    promises: dict[str, Attained] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # actions by their kind
    curve: list[tuple[float, int, int, int]] = field(
        default_factory=list
    )  # since when: GPU thousandths, running, waiting
    plans: int = 0
    lost: float = 0.0  # GPU s in which jobs had GPUs and made no progress: they were being put on them, or taken off


class Cluster:
    """One run."""

    def __init__(
        self,
        nodes: Iterable[Node],
        arrivals: Sequence[Arrival],
        rules: Rules,
        queues: Mapping[str, Queue] | None = None,
        *,
        period: float = 300.0,
        until: float = float("inf"),
        say: Callable[[float], None] = lambda now: None,
    ) -> None:
        """period: s between two looks at what the promises are worth; until: the run ends then, whoever lives."""
        self.nodes = {node.name: node for node in nodes}
        self.queues = dict(queues or {})
        self.rules, self.period, self.until, self.say = rules, period, until, say
        self.arrivals = sorted(arrivals, key=lambda one: one.at)
        self.jobs: dict[str, Job] = {}
        self.work: dict[str, float] = {}  # s
        self.left: dict[str, float] = {}  # of it
        self.result = Outcome()
        self._agenda: list[tuple[float, int, str, float]] = []  # when, order, what: a job, or ""; its `changed`
        self._count = 0
        self._sampled = 0.0

    def run(self) -> Outcome:
        """To the end of the last job, or of the run."""
        arrived, now, again = 0, 0.0, float("inf")
        while arrived < len(self.arrivals) or self._agenda or self.jobs:
            moment = min(self._agenda[0][0] if self._agenda else float("inf"), again)
            if arrived < len(self.arrivals):
                moment = min(moment, self.arrivals[arrived].at)
            if moment == float("inf") or moment > self.until:
                break
            self._sample(now, moment)
            now = moment
            self._happen(now)
            while arrived < len(self.arrivals) and self.arrivals[arrived].at <= now:
                self._arrive(self.arrivals[arrived], now)
                arrived += 1
            again = self._decide(now)
            self.say(now)
        self.result.live = self.jobs
        return self.result

    def _arrive(self, arrival: Arrival, now: float) -> None:
        name = f"j{len(self.work)}"
        self.work[name] = self.left[name] = max(arrival.work, 1e-3)
        spec = arrival.spec
        free = self.rules.fractions.get(spec.tier, 0.0) <= 0
        self.jobs[name] = Job(name, name, spec, now, changed=now, guaranteed=free, served=Served(until=now))
        self.result.promises[name] = Attained(spec.tier, guaranteed=free)

    def _happen(self, now: float) -> None:
        """What was foreseen for now."""
        while self._agenda and self._agenda[0][0] <= now:
            _, _, name, changed = heappop(self._agenda)
            job = self.jobs.get(name)
            if job is None or job.changed != changed:
                continue
            if job.phase is Phase.RUNNING:
                self._put(ended(job, now, self.rules, 0))
            else:
                self._settle(job, now)

    def _settle(self, job: Job, now: float) -> None:
        cost = now - job.changed
        self.result.lost += cost * _thousandths(job) / 1000
        job = settled(job, now, self.rules)
        self._put(job)
        if job.phase is Phase.RUNNING:
            self._foresee(now + self.left[job.id] / self._speed(job), job)

    def _decide(self, now: float) -> float:
        """When to decide again, whatever happens."""
        plan = decide(Snapshot(self.jobs, self.nodes, self.queues, self.rules), now)
        self.result.plans += 1
        for name, taken in plan.guaranteed.items():
            self.jobs[name] = with_guarantee(self.jobs[name], taken, now, self.rules)
            self.result.promises[name].guaranteed = taken
        leaves = max(
            (self.rules.suspend_seconds for action in plan.actions if isinstance(action, Suspend | Shrink)), default=0.0
        )
        for action in plan.actions:
            self.result.counts[type(action).__name__] += 1
            before = self.jobs[action.job]
            if before.phase is Phase.RUNNING:
                self.left[before.id] -= (now - before.changed) * self._speed(before)
            if isinstance(action, Requeue):
                self.left[before.id] = self.work[before.id]
            job = decided(before, action, now, self.rules)
            if isinstance(action, Grow | Shrink):
                job = settled(replace(job, changed=now), now, self.rules)
                job = replace(job, changed=now)
            self._put(job)
            if job.phase is Phase.RUNNING:
                self._foresee(now + self.left[job.id] / self._speed(job), job)
            else:
                self._foresee(now + self._takes(action, leaves), job)
        used = sum(_thousandths(job) for job in self.jobs.values() if job.phase in COMING or job.phase is Phase.RUNNING)
        running = sum(job.phase is Phase.RUNNING for job in self.jobs.values())
        waiting = sum(job.phase in (Phase.PENDING, Phase.SUSPENDED) for job in self.jobs.values())
        self.result.curve.append((now, used, running, waiting))
        return plan.again_at

    def _takes(self, action: object, leaves: float) -> float:
        rules = self.rules
        if isinstance(action, Suspend):
            return rules.suspend_seconds
        if isinstance(action, Start):
            return leaves
        if isinstance(action, Resume):
            return leaves + rules.resume_seconds
        return leaves + rules.move_seconds if isinstance(action, Move) else rules.suspend_seconds

    def _speed(self, job: Job) -> float:
        """Work per second: in proportion to its members."""
        return max(1, len(living(job))) / job.spec.members_min

    def _foresee(self, when: float, job: Job) -> None:
        self._count += 1
        heappush(self._agenda, (when, self._count, job.id, job.changed))

    def _put(self, job: Job) -> None:
        if job.phase in ENDED:
            self.jobs.pop(job.id, None)
            self.result.ended.append(job)
        else:
            self.jobs[job.id] = job

    def _sample(self, before: float, now: float) -> None:
        """Is the promise of each live job kept? Between two moments nothing changes but time."""
        while self._sampled + self.period <= now:
            self._sampled += self.period
            moment = max(before, self._sampled)
            for job in self.jobs.values():
                part = promised(job, self.rules)
                if part > 0:
                    wanted, had = totals(counted(job, moment, self.rules))
                    attained = self.result.promises[job.id]
                    attained.lived += self.period
                    attained.kept += self.period * (had >= part * wanted - 1e-6)


def _thousandths(job: Job) -> int:
    return len(living(job)) * job.spec.demand.gpus * job.spec.demand.gpu_thousandths
