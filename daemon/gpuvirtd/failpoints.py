# SPDX-License-Identifier: Apache-2.0
"""Places where tests make the daemon's side of a switch fail, as native/shim/failpoints.h does on the clients' side:
GPUVIRT_FAILPOINTS="NAME:ACTION[:N],..." in the environment of gpuvirtd.

The N-th time (default 1) that it comes to NAME, ACTION happens: fail (the connection of the client that the step is
about breaks), kill (SIGKILL), stop (SIGSTOP), or stall=MILLISECONDS (the loop stands still). Names that say "sent" or
"stored" come right after the step; those that say "taken" when the message is there and nothing has been done about it.
"""

from __future__ import annotations

import enum
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass

from gpuvirt.control import messages
from gpuvirt.control.block import LeaseState

VARIABLE = "GPUVIRT_FAILPOINTS"


class Point(enum.Enum):
    """Every name, in the order of a switch. tests/integration/test_switch_failures.py hits each."""

    WELCOME_SENT = "welcome_sent"
    DRAIN_STORED = "drain_stored"
    DRAINED_TAKEN = "drained_taken"
    CLOSE_STORED = "close_stored"
    EVICT_SENT = "evict_sent"
    RESTORE_SENT = "restore_sent"
    BACK_TAKEN = "back_taken"
    BACKED_SENT = "backed_sent"
    PROGRESS_TAKEN = "progress_taken"
    CREDIT_SENT = "credit_sent"
    EVICTED_TAKEN = "evicted_taken"
    RESTORED_TAKEN = "restored_taken"
    GRANT_STORED = "grant_stored"


BY_MESSAGE: dict[type[messages.Message], Point] = {
    messages.Welcome: Point.WELCOME_SENT,
    messages.Drained: Point.DRAINED_TAKEN,
    messages.Evict: Point.EVICT_SENT,
    messages.Restore: Point.RESTORE_SENT,
    messages.Back: Point.BACK_TAKEN,
    messages.Backed: Point.BACKED_SENT,
    messages.Progress: Point.PROGRESS_TAKEN,
    messages.Credit: Point.CREDIT_SENT,
    messages.Evicted: Point.EVICTED_TAKEN,
    messages.Restored: Point.RESTORED_TAKEN,
}
BY_STATE = {
    LeaseState.DRAIN: Point.DRAIN_STORED,
    LeaseState.CLOSED: Point.CLOSE_STORED,
    LeaseState.OPEN: Point.GRANT_STORED,
    LeaseState.GRANTED: Point.GRANT_STORED,
}


@dataclass(frozen=True)
class Rule:
    """What happens when a point is reached for the `at`-th time; `seconds` of a stall."""

    action: str
    at: int = 1
    seconds: float = 0.0


def parse(text: str) -> dict[Point, Rule]:
    """The rules of the variable. What is misspelt is left out, as on the clients' side."""
    rules = {}
    names = {point.value: point for point in Point}
    for one in text.split(","):
        name, _, rest = one.strip().partition(":")
        action, _, count = rest.partition(":")
        action, _, milliseconds = action.partition("=")
        if name in names and action in ("fail", "kill", "stop", "stall"):
            at = int(count) if count.isdigit() else 1
            rules[names[name]] = Rule(action, at, int(milliseconds) / 1e3 if milliseconds.isdigit() else 0.0)
    return rules


RULES = parse(os.environ.get(VARIABLE, ""))
_seen: Counter[Point] = Counter()


def reached(point: Point | None) -> bool:
    """True when the step shall fail. Costs one look-up where nothing is asked for."""
    rule = RULES.get(point) if point is not None and RULES else None
    if point is None or rule is None:
        return False
    _seen[point] += 1
    if _seen[point] != rule.at:
        return False
    print(f"failpoint {point.value}", file=sys.stderr, flush=True)
    if rule.action == "stall":
        time.sleep(rule.seconds)
    elif rule.action != "fail":
        os.kill(os.getpid(), signal.SIGKILL if rule.action == "kill" else signal.SIGSTOP)
    return rule.action == "fail"


def message(one: messages.Message) -> bool:
    """A message was sent, or has come: True when the connection shall break."""
    return bool(RULES) and reached(BY_MESSAGE.get(type(one)))


def lease(state: LeaseState) -> bool:
    """A lease word was stored: True when the connections of its job shall break."""
    return bool(RULES) and reached(BY_STATE.get(state))
