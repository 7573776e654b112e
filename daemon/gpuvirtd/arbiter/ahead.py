# SPDX-License-Identifier: Apache-2.0
"""Hand-overs that are decided while the giver drains, and happen without the loop of the daemon.

Armed only between two decisions: whoever is about to change facts takes first.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpuvirt.arbitration.facts import Gpu, Word
from gpuvirt.arbitration.foresight import successor
from gpuvirt.control.block import LeasePage, LeaseState
from gpuvirt.control.handover import CLIENTS, HandOver
from gpuvirtd.jobs import Member

WORDS = {Word.OPEN: LeaseState.OPEN, Word.GRANTED: LeaseState.GRANTED}


class Ahead:
    """Of one GPU."""

    def __init__(self) -> None:
        self._hand_over = HandOver()
        self.fd = self._hand_over.fd  # readable when a hand-over has happened
        self.taker = ""  # of the last plan

    def arm(self, gpu: Gpu, now: int, pages: Mapping[str, LeasePage], members: Mapping[int, Member]) -> None:
        """Who is next is known: it gets the lease as soon as the holder has drained."""
        plan = successor(gpu, now)
        if plan is None:
            return
        left = [number for number, client in gpu.contenders[plan.giver].clients.items() if not client.drained]
        if not 0 < len(left) <= CLIENTS or any(members[number].page.fd < 0 for number in left):  # one that just left
            return
        self.taker = plan.taker
        self._hand_over.arm(
            [members[number].page for number in left],
            pages[plan.giver],
            plan.epoch,
            pages[plan.taker],
            plan.taker_epoch,
            WORDS[plan.word],
            length_ns=plan.length,
            fits=plan.fits,
            window_us=-(-plan.window // 1000),
        )

    def take(self) -> int | None:
        """Nothing is handed over from here on. When it was (ns), to `taker`; None: it was not."""
        return self._hand_over.take()

    def heard(self) -> None:
        """`fd` was readable."""
        self._hand_over.heard()

    def leave(self, member: Member) -> None:
        """After `take`: the page of a client that is no longer a member may be closed."""
        self._hand_over.leave(member.page)

    def close(self) -> None:
        """Ends its thread."""
        self._hand_over.take()
        self._hand_over.close()
