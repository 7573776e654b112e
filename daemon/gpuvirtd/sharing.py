# SPDX-License-Identifier: Apache-2.0
"""Device memory that the processes of one job offer each other, until the owner withdraws it or ends."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from gpuvirt.control.messages import SHARE_MAX, Fetch, Share, Shared
from gpuvirtd.jobs import Member
from gpuvirtd.transport import close_all

HANDLES = 1 << 63  # this bit: what a program exported itself, not an extent
OFFERS_MAX = 8192  # descriptors of one job

# CUresults
SUCCESS = 0
INVALID_VALUE = 1
INVALID_HANDLE = 400
NOT_FOUND = 500
NOT_PERMITTED = 800

SYS_KCMP = 312 if os.uname().machine == "x86_64" else 272
KCMP_FILE = 0
_libc = ctypes.CDLL(None, use_errno=True)


def same_file(one: int, two: int) -> bool:
    """Whether two descriptors of this process are copies of one. It looks at nothing but the kernel's own table."""
    pid = os.getpid()
    return int(_libc.syscall(SYS_KCMP, pid, pid, KCMP_FILE, one, two)) == 0


class Shares:
    """All that is offered at present, by job and process."""

    def __init__(self) -> None:
        # (job, pid, nonce of the process) -> extent -> descriptor
        self._offers: dict[tuple[str, int, int], dict[int, int]] = {}
        self._fetched: dict[tuple[str, int, int], dict[int, dict[int, Member]]] = {}  # by extent, by member

    def offered(self, job: str) -> int:
        """Descriptors that are kept for a job."""
        return sum(len(extents) for (owner, _, _), extents in self._offers.items() if owner == job)

    def share(self, member: Member, message: Share, fds: Sequence[int]) -> Shared:
        """Take an offer, or its withdrawal. The descriptors are this object's from now on."""
        key = (member.job.id, member.process.pid, message.nonce)
        wanted = range(message.first, message.first + min(message.count, SHARE_MAX))
        if message.withdrawn:
            extents = self._offers.get(key, {})
            close_all([*fds, *(extents.pop(index) for index in wanted if index in extents)])
            for index in wanted:
                self._orphan(key, index)
            return Shared(message.request, SUCCESS, "")
        if len(fds) != len(wanted) or message.count > SHARE_MAX:
            close_all(fds)
            return Shared(message.request, INVALID_VALUE, f"{len(fds)} of {message.count} descriptors arrived")
        if self.offered(member.job.id) + len(fds) > OFFERS_MAX:
            close_all(fds)
            return Shared(
                message.request,
                NOT_PERMITTED,
                f"job {member.job.id} shares {OFFERS_MAX} pieces of memory between its processes already",
            )
        for stale in [k for k in self._offers if k[:2] == key[:2] and k != key]:
            self._drop(stale)  # the process started another program
        extents = self._offers.setdefault(key, {})
        close_all(extents.pop(index) for index in wanted if index in extents)
        extents.update(zip(wanted, fds, strict=True))
        return Shared(message.request, SUCCESS, "")

    def fetch(self, member: Member, message: Fetch) -> tuple[Shared, list[int]]:
        """The answer to a process that wants another one's extents, and the descriptors that go with it."""
        extents = self._offers.get((member.job.id, message.pid, message.nonce))
        if extents is None:
            others = any(pid == message.pid and nonce == message.nonce for _, pid, nonce in self._offers)
            if others:
                reason = (
                    f"the memory of process {message.pid} belongs to another job: "
                    "start both processes with one gpuvirt run to share it"
                )
                return Shared(message.request, NOT_PERMITTED, reason), []
            return Shared(message.request, INVALID_HANDLE, ""), []
        wanted = range(message.first, message.first + min(message.count, SHARE_MAX))
        if message.count > SHARE_MAX or any(index not in extents for index in wanted):
            return Shared(message.request, INVALID_HANDLE, ""), []
        fetched = self._fetched.setdefault((member.job.id, message.pid, message.nonce), {})
        for index in wanted:
            fetched.setdefault(index, {})[member.number] = member
        return Shared(message.request, SUCCESS, ""), [extents[index] for index in wanted]

    def known(self, member: Member, message: Fetch, fds: Sequence[int]) -> Shared:
        """Whether the descriptor that a process was given is one that its own job offers."""
        mine = (extents for (job, _, _), extents in self._offers.items() if job == member.job.id)
        found = len(fds) == 1 and any(
            number & HANDLES and same_file(fd, fds[0]) for extents in mine for number, fd in extents.items()
        )
        close_all(fds)
        return Shared(message.request, SUCCESS if found else NOT_FOUND, "")

    def forget(self, job: str, pid: int) -> None:
        """A process ended: nobody can open what it offered any more."""
        for extents in self._fetched.values():
            for holders in extents.values():
                for number in [n for n, holder in holders.items() if holder.process.pid == pid]:
                    del holders[number]
        for key in [key for key in self._offers if key[:2] == (job, pid)]:
            self._drop(key)

    def _drop(self, key: tuple[str, int, int]) -> None:
        close_all(self._offers.pop(key).values())
        for index in list(self._fetched.get(key, ())):
            self._orphan(key, index)
        self._fetched.pop(key, None)

    def _orphan(self, key: tuple[str, int, int], index: int) -> None:
        """Tell those who fetched an extent that its owner has gone from it."""
        for member in self._fetched.get(key, {}).pop(index, {}).values():
            if member.session is not None:
                member.session.send(Shared(0, SUCCESS, "", key[1], 1, key[2], index))

    def close(self) -> None:
        """Let go of everything."""
        for key in list(self._offers):
            self._drop(key)
