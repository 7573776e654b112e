# SPDX-License-Identifier: Apache-2.0
"""Jobs on one and on several GPUs under every order of events: all or none, nobody in a circle, nobody starves."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from several import LAUNCHING, MS, Rank, Several

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Word

JOBS = {"a": 1, "b": 3, "c": 1, "d": 1, "e": 2}
GPUS = 3


class Gangs(RuleBasedStateMachine):
    """Processes of five jobs on three GPUs. `several` checks each action at its moment."""

    ranks = Bundle("ranks")

    @initialize(policy=st.sampled_from(["fair", "priority", "deadline", "tiers"]), retry=st.sampled_from([20, 250]))
    def begin(self, policy: str, retry: int) -> None:
        self.several = Several(GPUS, policy, retry=retry * MS, quantum_max=1000 * MS)
        self.whole: dict[str, bool] = {}  # nothing of it was held when it came to its GPUs

    @rule(target=ranks, job=st.sampled_from(sorted(JOBS)), index=st.integers(0, GPUS - 1))
    def join(self, job: str, index: int) -> Rank:
        several = self.several
        known = several.gpus[index] in several.gpus_of(job)
        if not known and any(word is not Word.CLOSED for word in several.words_of(job)):
            self.whole[job] = False
        return several.join(job, index, JOBS[job], priority=job == "e", tier="premium" if job == "d" else "")

    @rule(rank=ranks, charged=st.integers(0, 60))
    def want(self, rank: Rank, charged: int) -> None:
        if self.here(rank):
            self.several.want(rank, charged)

    @rule(rank=ranks)
    def works(self, rank: Rank) -> None:
        """Its page says that it is busy."""
        if self.here(rank):
            here, client = events.find(rank.gpu, rank.number)
            client.idle = client.idle and not here.may_launch

    @rule(rank=ranks)
    def idle(self, rank: Rank) -> None:
        if self.here(rank):
            self.several.idle(rank)

    @rule(rank=ranks)
    def drained(self, rank: Rank) -> None:
        if self.here(rank):
            self.several.drained(rank)

    @rule(rank=ranks, waits=st.booleans())
    def stuck(self, rank: Rank, waits: bool) -> None:
        if self.here(rank) and rank.on_gpu:
            self.several.stuck(rank, waits)

    @rule(rank=ranks, status=st.sampled_from([0, 0, 0, 2, 999]))
    def answer(self, rank: Rank, status: int) -> None:
        if self.here(rank):
            self.several.answer(rank, status)

    @rule(rank=consumes(ranks))
    def die(self, rank: Rank) -> None:
        if self.here(rank):
            self.several.leave(rank)

    @rule(job=st.sampled_from(sorted(JOBS)), suspended=st.booleans())
    def suspend(self, job: str, suspended: bool) -> None:
        for gpu in self.several.gpus:
            events.set_suspended(gpu, job, suspended)
            self.several.settle(gpu)

    @rule(milliseconds=st.integers(0, 60))
    def later(self, milliseconds: int) -> None:
        self.several.later(milliseconds * MS)

    def here(self, rank: Rank) -> bool:
        return rank.number in self.several.ranks

    @invariant()
    def all_or_none(self) -> None:
        if not hasattr(self, "several"):
            return
        for job in JOBS:
            words = self.several.words_of(job)
            if all(word is Word.CLOSED for word in words):
                self.whole[job] = True
            elif self.whole.get(job):
                launching = [word in LAUNCHING for word in words]
                assert all(launching) or not any(launching), (job, words)
                assert all(launching) or all(word is Word.DRAIN for word in words), (job, words)

    @invariant()
    def at_work(self) -> None:
        """Who wants a GPU that nobody has, and needs nothing but the lease, has it; unless a gang's turn has come."""
        for gpu in self.several.gpus if hasattr(self, "several") else ():
            if gpu.holder is not None or gpu.reserved is not None or any(c.request for c in gpu.clients()):
                continue
            for one in gpu.contenders.values():
                able = one.gang is None and not one.suspended and one.not_before <= self.several.now
                memory = any(client.shortfall or not client.restored for client in one.clients.values())
                assert not (one.waiting and able and not memory), (gpu.name, one.key)

    def teardown(self) -> None:
        """When everybody behaves from now on, whoever wants the GPU and fits gets it, gangs on all at one time."""
        if not hasattr(self, "several"):
            return
        several = self.several
        for gpu in several.gpus:
            for job in JOBS:
                events.set_suspended(gpu, job, False)
            events.room_changed(gpu)
            several.settle(gpu)
        wanting = {job for job in JOBS if any(several.contender(job, i).waiting for i in self._indices(job))}
        wanting = {job for job in wanting if all(self._fits(job, gpu.name) for gpu in several.gpus_of(job))}
        for _ in range(400):
            for rank in list(several.ranks.values()):
                several.answer(rank)
                several.drained(rank)
            wanting -= {job for job in wanting if all(word in LAUNCHING for word in several.words_of(job))}
            if not wanting:
                return
            several.later(10 * MS)
        raise AssertionError(f"never had their GPUs: {wanting}")

    def _indices(self, job: str) -> list[int]:
        return [index for index, gpu in enumerate(self.several.gpus) if gpu in self.several.gpus_of(job)]

    def _fits(self, job: str, name: str) -> bool:
        return sum(rank.charged for rank in self.several.of(job) if rank.gpu.name == name) <= 100


TestGangs = Gangs.TestCase
TestGangs.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
