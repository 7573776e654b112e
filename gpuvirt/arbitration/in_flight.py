# SPDX-License-Identifier: Apache-2.0
"""How much GPU time of work a job may have in flight while it holds the lease: W, written into its lease page.

What is in flight when the lease is asked back is what the next job waits for. The shim keeps to W by marks, which cost
a little; so nothing is bounded (0) while nobody else wants the GPU and nobody could come who must not wait.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import SECOND, Contender, Gpu, Word
from gpuvirt.arbitration.rank import outranks

SHARE = 10  # among equals: the quantum divided by this
SHARE_OF_LONG = 40  # the same where the bound is larger than `rules.window_max`: marks cost a little, too
PRESENT = SECOND  # who had the GPU so recently is expected back at any time


def window_ns(gpu: Gpu, contender: Contender, word: Word, now: int) -> int:
    """W of a contender whose lease word is to be `word` (ns); 0: no bound.

    - Alone (OPEN): 0, once nobody else has had the GPU for a second. A job that is between two launches when the lease
      goes round wants nothing at that moment; in a few ms without a bound seconds of work can be given to the GPU.
    - Among equals: a tenth of the quantum, at most `rules.window_max`, or a fortieth of a quantum that is long because
      switching is dear.
    - A job that goes before it has a process on this GPU, whether or not it wants the GPU now: `rules.window_urgent`.
    - `rules.window_max` or `rules.window_urgent` of 0: no bound where it would hold.
    - In STEP, and as long as its work waits for its own threads: 0. They must come to what ends the wait.
    """
    if word is Word.STEP or contender.given_back > 0:
        return 0
    others = (other for other in gpu.contenders.values() if other.clients and other is not contender)
    if any(outranks(gpu, other, contender, now) for other in others):
        return gpu.rules.window_urgent
    if word is Word.OPEN and now >= expected_until(gpu, contender):
        return 0
    if gpu.rules.window_max == 0:
        return 0
    quantum = max(contender.quantum, gpu.rules.quantum)
    return min(max(gpu.rules.window_max, quantum // SHARE_OF_LONG), quantum // SHARE)


def expected_until(gpu: Gpu, contender: Contender) -> int:
    """Until when somebody else may be about to come back to the GPU; 0: nobody."""
    others = (other for other in gpu.contenders.values() if other.clients and other is not contender)
    return max((other.last_run_ns + PRESENT for other in others if other.last_run_ns), default=0)
