# SPDX-License-Identifier: Apache-2.0
"""What happens to a job that does not give the GPU back.

1. It is asked (DRAIN): its gate is shut from then on. 2. After `drain_budget` that is reported, and counted as overrun.
3. If it says that its work may wait for its own threads, these go on for moments (drain.give_back). 4. After
`overrun_after`, if others still want the GPU, as `on_overrun` says:

- wait: nothing more. Its work is on the GPU until it ends. (The default: nothing is taken from anybody.)
- stop: its processes are stopped (SIGSTOP), and others may have the GPU as far as its memory leaves room; on hardware
  its kernels run beside theirs. When its turn comes it goes on, with a lease as any other. (Not a job on several GPUs.)
- kill: its processes are killed.
"""

from __future__ import annotations

import enum

from gpuvirt.arbitration.aside import find, step_aside
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Signal, Signals
from gpuvirt.arbitration.gang import offered
from gpuvirt.arbitration.policies import choose
from gpuvirt.arbitration.transitions import rivals
from gpuvirt.units import format_duration


class OnOverrun(enum.Enum):
    """The last rung."""

    WAIT = "wait"
    STOP = "stop"
    KILL = "kill"


def climb(gpu: Gpu, holder: Contender, now: int, out: Decision) -> bool:
    """The drain of `holder` has not ended. True if the GPU is free for others now."""
    rules = gpu.rules
    if rules.on_overrun == OnOverrun.WAIT.value or holder.killed:
        return False
    due = holder.asked_ns + rules.overrun_after
    if now < due:
        out.wake(due)
        return False
    best = choose(gpu, offered(gpu, rivals(gpu, now, out, without=holder.key), now), now)
    if best is None:
        return False  # nobody suffers from it
    why = f"its work was on the GPU {format_duration(now - holder.asked_ns)} after others wanted it"
    if rules.on_overrun == OnOverrun.KILL.value:
        holder.killed = True
        holder.reason = f"is killed: {why}"
        out.actions.append(Signal(holder.key, Signals.KILL))
        out.note("warning", "overrun_killed", holder.key, epoch=holder.epoch, reason=why)
        return False
    if holder.gang is not None:
        return False
    if find(gpu) is not None or any(client.request is not None for client in holder.clients.values()):
        return False  # one at a time; and who is stopped answers nothing
    holder.stopped = True
    holder.reason = f"is stopped until its turn: {why}"
    out.actions.append(Signal(holder.key, Signals.STOP))
    out.note("warning", "overrun_stopped", holder.key, epoch=holder.epoch, reason=why)
    step_aside(gpu, holder, now)
    gpu.next = best.key
    return True
