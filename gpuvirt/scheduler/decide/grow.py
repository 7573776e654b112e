# SPDX-License-Identifier: Apache-2.0
"""What nobody waits for goes to jobs that can use more members. They give it back when somebody does. PURE."""

from __future__ import annotations

from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.place import place
from gpuvirt.scheduler.decide.room import living
from gpuvirt.scheduler.state import Job, Phase


def grow(draft: Draft) -> None:
    """The first in rank first."""
    able = [job for job in draft.jobs.values() if _can(draft, job)]
    for job in sorted(able, key=lambda job: (draft.rank(job), job.submitted, job.id)):
        members = living(job)
        for count in range(job.spec.members_max - len(members), 0, -1):
            if draft.usage.forbidden(job.spec.queue, draft.usage.asked(job, count)):
                continue
            more = place(draft.room, job, count, beside=members)
            if more is not None:
                draft.grow(job, more)
                break


def _can(draft: Draft, job: Job) -> bool:
    settled = (
        draft.now - job.changed >= draft.rules.hysteresis / 4
    )  # who has just given some back does not take it again
    running = job.phase is Phase.RUNNING and job.id not in draft.touched and not job.held
    return running and settled and len(living(job)) < job.spec.members_max
