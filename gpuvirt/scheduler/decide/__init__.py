# SPDX-License-Identifier: Apache-2.0
"""What a scheduler does next: decide(snapshot, now) -> Plan. PURE.

    draft.py       a plan while it is made
    room.py        what is left on the hosts: GPU time and memory, cores, host memory, room to swap
    queues.py      what queues use: quotas, limits, fair shares
    promise.py     what tiers promise, and what each job has had of it
    admit.py       which guarantees can be taken on
    rank.py        who goes before whom
    leave.py       jobs that cannot stay where they are
    serve.py       GPUs for those that wait, in order
    place.py       where: as close together as they fit
    victims.py     whose GPUs, when there are no free ones
    defragment.py  free GPUs of several hosts put together by moving jobs
    grow.py        what nobody waits for
    why.py         in words

Equal snapshots give equal plans. A plan is whole: each job is in at most one action of it.
"""

from __future__ import annotations

from gpuvirt.scheduler.actions import Explanation, Plan
from gpuvirt.scheduler.decide.admit import admit
from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.grow import grow
from gpuvirt.scheduler.decide.leave import leave
from gpuvirt.scheduler.decide.serve import Serve
from gpuvirt.scheduler.state import Phase, Snapshot


def decide(snapshot: Snapshot, now: float) -> Plan:
    """What is to be done now (s since 1970)."""
    guaranteed = admit(snapshot.jobs.values(), snapshot.nodes.values(), snapshot.rules)
    draft = Draft(snapshot, now, guaranteed)
    leave(draft)
    Serve(draft).run()
    grow(draft)
    for job in snapshot.jobs.values():
        if job.held and job.phase in (Phase.PENDING, Phase.SUSPENDED) and job.id not in draft.touched:
            draft.explain(job, Explanation("its user has suspended it"))
    return Plan(tuple(draft.actions), draft.explanations, guaranteed, draft.again_at)
