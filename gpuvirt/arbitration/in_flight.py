# SPDX-License-Identifier: Apache-2.0
"""How much GPU time of work a job may have in flight while it holds the lease: W, written into its lease page.

What is in flight when the lease is asked back is what the next job waits for. The shim keeps to W by marks, which cost
a little; so nothing is bounded (0) while nobody else wants the GPU and nobody could come who must not wait.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Word
from gpuvirt.arbitration.rank import outranks

SHARE = 10  # among equals: the quantum divided by this


def window_ns(gpu: Gpu, contender: Contender, word: Word, now: int) -> int:
    """W of a contender whose lease word is to be `word` (ns); 0: no bound.

    - Alone (OPEN): 0.
    - Among equals: a tenth of the quantum, at most `rules.window_max`.
    - A job that goes before it has a process on this GPU, whether or not it wants the GPU now: `rules.window_urgent`.
    - In STEP, and as long as its work waits for its own threads: 0. They must come to what ends the wait.
    """
    if word is Word.STEP or contender.given_back > 0:
        return 0
    others = (other for other in gpu.contenders.values() if other.clients and other is not contender)
    if any(outranks(gpu, other, contender, now) for other in others):
        return gpu.rules.window_urgent
    if word is Word.OPEN:
        return 0
    return min(gpu.rules.window_max, max(contender.quantum, gpu.rules.quantum) // SHARE)
