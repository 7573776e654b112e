# SPDX-License-Identifier: Apache-2.0
"""Whose GPUs a waiting job gets when there are no free ones. PURE.

What may be taken comes in pieces: each member that a job has beyond the fewest that it needs, then the job as a whole.
The last tier comes first, in it those on hosts that jobs with a promise are on, then the last in rank, those with the
most to spare of their promise, the smallest. Pieces are given up one after the other until the waiting job fits; what
turns out not to be needed is kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.place import allowed, place
from gpuvirt.scheduler.decide.promise import credit, promised
from gpuvirt.scheduler.decide.rank import URGENT, Rank, surplus
from gpuvirt.scheduler.decide.room import OCCUPYING, living
from gpuvirt.scheduler.state import Job, Member, Phase

MOST = 256  # pieces that are looked at for one job


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that can be given up: one rank of a job, or (rank None) all of it."""

    rank: Rank
    crowd: int  # thousandths of GPUs that jobs with a promise have on its host, the least of its hosts
    spare: float  # s of credit
    job: Job
    member: Member | None

    @property
    def members(self) -> list[Member]:
        return [self.member] if self.member is not None else living(self.job)


@dataclass(frozen=True, slots=True)
class Given:
    """A piece that is given up; `anew`: its host has no room to keep it, it begins anew somewhere."""

    piece: Piece
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What must be given up, and where the waiting job goes then; None: where its members are suspended."""

    given: tuple[Given, ...]
    members: tuple[Member, ...] | None


class Victims:
    """All that could be given up, of the plan as it is when this is made."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        found: list[Piece] = []
        crowds = _crowds(draft)
        for job in draft.jobs.values():
            if job.phase is not Phase.RUNNING or job.id in draft.touched:
                continue
            rank, spare = draft.rank(job), credit(job, draft.rules)
            ranks = sorted(living(job), key=lambda member: -member.rank)
            extra = ranks[: max(0, len(ranks) - job.spec.members_min)]
            found += [Piece(surplus(rank), crowds[member.node], spare, job, member) for member in extra]
            found.append(Piece(rank, min((crowds[one.node] for one in ranks), default=0), spare, job, None))
        found.sort(key=_order, reverse=True)
        self._pieces = found

    def find(self, job: Job, rank: Rank) -> Found | None:
        """What a waiting job would need; None: all that it may take would not do."""
        given: list[Given] = []
        found: Found | None = None
        looked = 0
        for piece in self._pieces:
            if looked == MOST or piece.rank[:2] < rank[:2]:
                break  # they are sorted: nobody after it is behind the job either
            if piece.rank < rank or piece.job.id in self.draft.touched:
                continue
            if not self._may(piece, job, rank) or not self._helps(piece, job):
                continue
            looked += 1
            if not self._give_up(piece, given, rank):
                continue
            found = self._fits(job, given)
            if found is not None:
                found = self._spare(job, given) or found
                break
        for one in given:
            _give(self.draft, one, -1)
        return found

    def _give_up(self, piece: Piece, given: list[Given], rank: Rank) -> bool:
        """Adds a piece; False: it cannot be given up. Nobody loses work for who is merely next in line."""
        whole = piece.member is None
        parts = [one for one in given if whole and one.piece.job.id == piece.job.id]  # they go with it
        for one in parts:
            _give(self.draft, one, -1)
        more = Given(piece, whole and not self.draft.room.can_suspend(piece.job))
        if more.anew and not (piece.job.spec.restarts and rank[:3] < piece.rank[:3]):
            for one in parts:
                _give(self.draft, one, 1)
            return False
        given[:] = [one for one in given if one not in parts]
        given.append(more)
        _give(self.draft, more, 1)
        return True

    def _spare(self, job: Job, given: list[Given]) -> Found | None:
        """Keeps what is not needed, the highest in rank first. `given` is what is given up at the end."""
        best: Found | None = None
        for one in sorted(given[:-1], key=lambda one: _order(one.piece)):
            _give(self.draft, one, -1)
            rest = [other for other in given if other is not one]
            found = self._fits(job, rest)
            if found is None:
                _give(self.draft, one, 1)
            else:
                given.remove(one)
                best = found
        return best

    def _fits(self, job: Job, given: list[Given]) -> Found | None:
        if job.phase is Phase.SUSPENDED and self.draft.room.can_resume(job):
            return Found(tuple(given), None)
        if job.phase is Phase.SUSPENDED and not self.draft.rules.moves:
            return None
        members = place(self.draft.room, job, job.spec.members_min)
        return Found(tuple(given), members) if members is not None else None

    def _may(self, piece: Piece, job: Job, rank: Rank) -> bool:
        """Who was put on GPUs a moment ago stays for one of its own tier; who came back for its promise, for all."""
        if piece.rank == rank and not self._has_passed(piece.job, job):
            return False
        if piece.member is not None or rank.urgency == URGENT or rank.tier < piece.rank.tier:
            return True
        until = piece.job.changed + self.draft.rules.hysteresis
        self.draft.look_again(until)
        return self.draft.now >= until

    def _has_passed(self, runs: Job, waits: Job) -> bool:
        """A smaller job that came later has found room first; the larger one takes it when it lacks no more."""
        if waits.phase is not Phase.PENDING or runs.submitted <= waits.submitted:
            return False
        share = self.draft.usage.share
        return runs.spec.queue == waits.spec.queue or share(runs.spec.queue) > share(waits.spec.queue)

    def _helps(self, piece: Piece, job: Job) -> bool:
        """Is it anywhere where the job could go?"""
        wanted = {member.node for member in living(job)} if self._must_stay(job) else None
        for member in piece.members:
            host = self.draft.room.hosts.get(member.node)
            if host is None or not host.usable or not allowed(job.spec, host):
                continue
            if wanted is not None and member.node not in wanted:
                continue
            types = job.spec.demand.gpu_types
            if not types or any(host.gpus[uuid].gpu.type in types for uuid in member.gpus if uuid in host.gpus):
                return True
        return False

    def _must_stay(self, job: Job) -> bool:
        return job.phase is Phase.SUSPENDED and not self.draft.rules.moves


def carry_out(draft: Draft, found: Found, why: str) -> None:
    """Gives the pieces up."""
    ranks: dict[str, list[int]] = {}
    for one in found.given:
        job = draft.jobs[one.piece.job.id]
        if one.piece.member is not None:
            ranks.setdefault(job.id, []).append(one.piece.member.rank)
        elif one.anew:
            draft.requeue(job, f"{why}; its host has no room to keep its memory")
        else:
            draft.suspend(job, why)
    for name, gone in ranks.items():
        draft.shrink(draft.jobs[name], gone, why)


def _order(piece: Piece) -> tuple[object, ...]:
    """The largest is given up first: of one tier those beside jobs with a promise, so that these share hosts."""
    size = len(piece.members) * piece.job.spec.demand.gpus * piece.job.spec.demand.gpu_thousandths
    rank = piece.member.rank if piece.member is not None else -1
    return (*piece.rank[:2], piece.crowd, *piece.rank[2:], piece.spare, -size, piece.job.id, rank)


def _crowds(draft: Draft) -> Counter[str]:
    found: Counter[str] = Counter()
    for job in draft.jobs.values():
        if job.phase in OCCUPYING and promised(job, draft.rules) > 0:
            for member in living(job):
                found[member.node] += job.spec.demand.gpus * job.spec.demand.gpu_thousandths
    return found


def _give(draft: Draft, given: Given, sign: int) -> None:
    """As if it had been given up (1), or had not (-1)."""
    piece, room = given.piece, draft.room
    if piece.member is not None or given.anew:
        room.occupy(piece.job.spec.demand, piece.members, -sign)
    elif sign > 0:
        room.suspend(piece.job)
    else:
        room.unsuspend(piece.job)
