# SPDX-License-Identifier: Apache-2.0
"""Processes on a GPU that are no clients: started without gpuvirt, or escaped from a job (a lost LD_PRELOAD)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpuvirtd.identity import is_descendant, uid_of
from gpuvirtd.jobs import Job, user_name

if TYPE_CHECKING:
    from gpuvirtd.arbiter.arbiter import Arbiter


def strangers(arbiter: Arbiter, jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """What NVML last listed on the GPU and nobody attached: pid, name, user, and the job that started it or None.

    Processes of other pid namespaces, which cannot be looked at from here, are left out.
    """
    if arbiter.usage is None:
        return []
    clients = {member.process.pid for member in arbiter.members.values()}
    found = []
    for pid in arbiter.usage.pids:
        name, uid = _name(pid), uid_of(pid)
        if pid in clients or name is None or uid is None:
            continue
        job = next((job.id for job in jobs if job.root is not None and is_descendant(pid, job.root.pid)), None)
        found.append({"pid": pid, "name": name, "user": user_name(uid), "job": job})
    return found


def _name(pid: int) -> str | None:
    """Of a living process."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
