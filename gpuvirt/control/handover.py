# SPDX-License-Identifier: Apache-2.0
"""A hand-over that is decided before it can happen, and then does not wait for Python (handover_ops.h)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from gpuvirt.control._control_block import ffi, lib
from gpuvirt.control.block import ClientPage, LeasePage, LeaseState

CLIENTS: int = lib.GV_HANDOVER_CLIENTS


class HandOver:
    """One plan at a time, and a thread that carries it out. Raises OSError where there is none to be had."""

    def __init__(self) -> None:
        self._plan = ffi.new("struct gv_handover *")
        error = lib.gv_handover_start(self._plan)
        if error:
            raise OSError(error, os.strerror(error))
        self.fd: int = self._plan.descriptor
        self._pages: list[ClientPage | LeasePage] = []  # the plan's: alive while the thread may look at them

    def arm(
        self,
        clients: Sequence[ClientPage],
        giver: LeasePage,
        giver_epoch: int,
        taker: LeasePage,
        taker_epoch: int,
        word: LeaseState,
        *,
        length_ns: int,
        fits: bool,
        window_us: int,
    ) -> None:
        """When all clients of the giver have drained its epoch: its word becomes CLOSED, that of the taker `word`.

        At most CLIENTS of them. After `take`. length_ns: of the taker's quantum from then on, 0: none.
        """
        plan = self._plan
        lib.gv_handover_drains(plan, giver_epoch, len(clients))
        for index, page in enumerate(clients):
            lib.gv_handover_client(plan, index, page.drained_word)
        plan.giver, plan.taker = giver.block, taker.block
        plan.giver_word = lib.gv_lease_word(giver_epoch, int(LeaseState.CLOSED))
        plan.taker_word = lib.gv_lease_word(taker_epoch, int(word))
        plan.flags = lib.GV_LEASE_FITS if fits else 0
        plan.window_us, plan.length_ns = window_us, length_ns
        self._pages = [*clients, giver, taker]
        lib.gv_handover_arm(plan)

    def take(self) -> int | None:
        """Voids the plan. When it was carried out (CLOCK_MONOTONIC, ns); None: it was not, and will not be."""
        return int(lib.gv_handover_take(self._plan)) or None

    def heard(self) -> None:
        """The descriptor was readable: not any more."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def leave(self, page: ClientPage) -> None:
        """After `take`: the page may be closed."""
        lib.gv_handover_leave(self._plan, page.drained_word)

    def close(self) -> None:
        """After `take`: ends the thread."""
        if self.fd >= 0:
            lib.gv_handover_stop(self._plan)
            self.fd = -1
