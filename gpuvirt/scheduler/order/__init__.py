# SPDX-License-Identifier: Apache-2.0
"""PURE orders of the cluster's queue: which of the jobs have GPUs. One file each.

    base.py, job.py, queue.py   the Protocol, what it sees, how GPUs are dealt out
    attained.py                 the default: least attained GPU time, last suspended first
    las.py                      Tiresias' dlas-gpu
    fifo.py, fit_first.py       by arrival
    backfill.py, srtf.py        with run times known
    drf.py                      fair between tenants

A new one: its file, its line in POLICIES, its test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvirt.scheduler.order.attained import Attained
from gpuvirt.scheduler.order.backfill import Backfill
from gpuvirt.scheduler.order.base import Policy
from gpuvirt.scheduler.order.drf import Drf
from gpuvirt.scheduler.order.fifo import Fifo
from gpuvirt.scheduler.order.fit_first import FitFirst
from gpuvirt.scheduler.order.job import Terms
from gpuvirt.scheduler.order.las import Las
from gpuvirt.scheduler.order.srtf import Srtf, SrtfGpu

DEFAULT: Final = Attained.name
POLICIES: Final[dict[str, Callable[[Terms], Policy]]] = {
    Attained.name: Attained,
    Las.name: Las,
    Fifo.name: Fifo,
    FitFirst.name: FitFirst,
    Backfill.name: Backfill,
    Drf.name: Drf,
    SrtfGpu.name: SrtfGpu,
    Srtf.name: Srtf,
}
