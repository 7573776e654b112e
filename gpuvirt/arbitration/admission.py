# SPDX-License-Identifier: Apache-2.0
"""Who may start now, and who waits in line: pure, of a snapshot.

A job that is started will allocate. If what it declares (its limit or its reservation) beside what the others have
and have declared were more than the host could take if it had to be swapped, it would meet CUDA_ERROR_OUT_OF_MEMORY
on its way: so it waits before it starts, with the reason, its place and an estimate.

Order: every tenant's first job before any tenant's second, and so on; within that who came first. The head of the
line is never overtaken, so nobody waits for ever. (When a tenant's first job starts, its next one becomes its first,
and came earlier than whoever comes later.) Who waits for nothing but its own tenant's budget holds up that tenant
alone: else one tenant could close the host to all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpuvirt.units import format_size


@dataclass(frozen=True, slots=True)
class Applicant:
    """A job in line. Bytes."""

    key: str
    tenant: int
    need: int  # what it declares; 0: nothing
    arrival: int  # number in the order in which they came


@dataclass(frozen=True, slots=True)
class Running:
    """A job that was started. Bytes, seconds."""

    key: str
    tenant: int
    committed: int  # what it has or has declared, whichever is more
    age_s: float  # since it was started


@dataclass(frozen=True, slots=True)
class Budgets:
    """What all together, and each tenant, may have swapped (bytes); what the devices hold besides does not count."""

    host: int
    tenants: Mapping[int, int | None]  # by tenant; missing or None: no budget of its own
    devices: int  # capacity of all devices: what fits there together needs no host memory


@dataclass(frozen=True, slots=True)
class Place:
    """One job's place: position 0 starts now, 1 is the head of the line."""

    key: str
    position: int
    reason: str = ""
    estimate_s: float | None = None  # until it starts; None: nothing is known


def line(
    applicants: Sequence[Applicant], running: Sequence[Running], budgets: Budgets, typical_s: float | None
) -> list[Place]:
    """Everybody's place, the next to start first. typical_s: how long jobs usually last (None: not known yet)."""
    started = list(running)
    places: list[Place] = []
    ahead: list[Applicant] = []  # those that wait, so far
    closed = False  # for all: somebody waits for the host
    full: set[int] = set()  # tenants of which somebody waits for the tenant's own budget
    for applicant in order(applicants):
        obstacle = what_is_missing(applicant, started, budgets)
        if not closed and applicant.tenant not in full and obstacle is None:
            started.append(Running(applicant.key, applicant.tenant, applicant.need, 0.0))
            places.append(Place(applicant.key, 0))
            continue
        reason = obstacle or "waits behind the head of the line"
        wait = estimate(applicant, ahead, started, budgets, typical_s)
        ahead.append(applicant)
        full.add(applicant.tenant)
        closed = closed or _host_lacks(applicant, started, budgets) is not None
        places.append(Place(applicant.key, len(ahead), reason, wait))
    return places


def order(applicants: Sequence[Applicant]) -> list[Applicant]:
    """Every tenant's first, then every tenant's second, ...; within that who came first."""
    seen: dict[int, int] = {}
    ranked = []
    for applicant in sorted(applicants, key=lambda one: one.arrival):
        rank = seen.get(applicant.tenant, 0)
        seen[applicant.tenant] = rank + 1
        ranked.append((rank, applicant.arrival, applicant))
    return [applicant for _, _, applicant in sorted(ranked, key=lambda row: row[:2])]


def what_is_missing(applicant: Applicant, running: Sequence[Running], budgets: Budgets) -> str | None:
    """Why it cannot start now; None if it can. Whoever would be alone starts: it is never swapped."""
    if not running or _fits_devices(applicant, running, budgets):
        return None
    return _host_lacks(applicant, running, budgets) or _tenant_lacks(applicant, running, budgets)


def _fits_devices(applicant: Applicant, running: Sequence[Running], budgets: Budgets) -> bool:
    return sum(job.committed for job in running) + applicant.need <= budgets.devices


def _host_lacks(applicant: Applicant, running: Sequence[Running], budgets: Budgets) -> str | None:
    others = sum(job.committed for job in running)
    if not running or _fits_devices(applicant, running, budgets) or applicant.need + others <= budgets.host:
        return None
    return (
        f"the host memory budget of {format_size(budgets.host)} is taken: {format_size(others)} by "
        f"{_jobs(len(running))} that {'run' if len(running) > 1 else 'runs'}{_wanted(applicant)}"
    )


def _tenant_lacks(applicant: Applicant, running: Sequence[Running], budgets: Budgets) -> str | None:
    own = budgets.tenants.get(applicant.tenant)
    mine = [job for job in running if job.tenant == applicant.tenant]
    used = sum(job.committed for job in mine)
    if own is not None and mine and applicant.need + used > own:
        return (
            f"the host memory budget of this user, {format_size(own)}, is taken: {format_size(used)} by "
            f"{_jobs(len(mine))}{_wanted(applicant)}"
        )
    return None


def _wanted(applicant: Applicant) -> str:
    return f", and this one declares {format_size(applicant.need)}" if applicant.need else ""


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def estimate(
    applicant: Applicant,
    ahead: Sequence[Applicant],
    running: Sequence[Running],
    budgets: Budgets,
    typical_s: float | None,
) -> float | None:
    """Seconds until it starts, if jobs last as long as they usually do; None if nothing is known.

    Jobs that have lasted longer than usual are expected to go on for half as long again as they have lasted beyond it.
    """
    if typical_s is None:
        return None
    left = [(max(typical_s - job.age_s, (job.age_s - typical_s) / 2, 0.0), job) for job in running]
    now = 0.0
    for waiting in [*ahead, applicant]:
        while left and what_is_missing(waiting, [job for _, job in left], budgets) is not None:
            left.sort(key=lambda row: (row[0], row[1].key))
            now = max(now, left.pop(0)[0])
        left.append((now + typical_s, Running(waiting.key, waiting.tenant, waiting.need, 0.0)))
    return now
