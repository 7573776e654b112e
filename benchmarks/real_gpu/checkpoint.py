# SPDX-License-Identifier: Apache-2.0
"""Suspends and resumes a process by the driver's own checkpoint calls: python -m real_gpu.checkpoint PID.

Prints the seconds of each call as JSON, in the form of a probe's answer. It is what cuda-checkpoint does, without the
time to start a program for each call.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cuda.bindings import driver

from real_gpu.cuda import CallFailed, check, timed


def suspend_and_resume(pid: int) -> dict[str, Any]:
    """Seconds of lock, checkpoint, restore and unlock of a process. Raises CallFailed."""
    check((*driver.cuInit(0), None), "cuInit")
    lock = driver.CUcheckpointLockArgs()
    lock.timeoutMs = 30_000
    found = {}
    for name, call, arguments in (
        ("lock_s", driver.cuCheckpointProcessLock, (pid, lock)),
        ("checkpoint_s", driver.cuCheckpointProcessCheckpoint, (pid, None)),
        ("restore_s", driver.cuCheckpointProcessRestore, (pid, None)),
        ("unlock_s", driver.cuCheckpointProcessUnlock, (pid, None)),
    ):
        _, micros = timed(call, *arguments)
        found[name] = round(micros / 1e6, 4)
    return found


def main() -> int:
    """Exit code 0 with {"answer": ...}, 1 with {"error": ...}."""
    try:
        print(json.dumps({"answer": suspend_and_resume(int(sys.argv[1]))}))
    except (CallFailed, AttributeError) as error:  # an older cuda.bindings has no such calls
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
