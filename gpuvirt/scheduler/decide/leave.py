# SPDX-License-Identifier: Apache-2.0
"""Jobs that cannot stay: their host is lost or is being emptied, or their user has put them aside. PURE."""

from __future__ import annotations

from gpuvirt.scheduler.actions import Explanation
from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.place import place
from gpuvirt.scheduler.decide.room import living
from gpuvirt.scheduler.state import Job, NodeState, Phase

STAYS = frozenset({Phase.STARTING, Phase.RUNNING, Phase.SUSPENDING, Phase.SUSPENDED, Phase.RESUMING})


def leave(draft: Draft) -> None:
    """What must be done whoever else waits."""
    for job in list(draft.jobs.values()):
        if job.phase not in STAYS:
            continue
        nodes = {member.node: draft.nodes.get(member.node) for member in living(job)}
        lost = sorted(name for name, node in nodes.items() if node is None or node.state is NodeState.LOST)
        if lost:
            draft.requeue(job, f"host {lost[0]} is lost")
            continue
        draining = [node for node in nodes.values() if node is not None and node.state is NodeState.DRAINING]
        if draining:
            _make_room(draft, job, draining[0].name, max(node.patience_until for node in draining))
        elif job.held and job.phase is Phase.RUNNING:
            _put_aside(draft, job, "its user has suspended it")


def _make_room(draft: Draft, job: Job, node: str, patience_until: float) -> None:
    why = f"host {node} is being emptied"
    if draft.rules.moves and job.phase in (Phase.RUNNING, Phase.SUSPENDED):
        members = place(draft.room, job, len(living(job)))
        if members is not None:
            draft.move(job, members, why)
            return
    if draft.now < patience_until:
        draft.look_again(patience_until)
    elif job.spec.restarts:
        draft.requeue(job, why)
    elif job.phase is Phase.RUNNING:  # its work is all that it has: it stays, off the GPU
        _put_aside(draft, job, why)


def _put_aside(draft: Draft, job: Job, why: str) -> None:
    if draft.room.can_suspend(job):
        draft.suspend(job, why)
    else:
        draft.explain(job, Explanation(f"{why}, but its host has no room to keep its memory"))
