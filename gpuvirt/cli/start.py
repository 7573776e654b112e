# SPDX-License-Identifier: Apache-2.0
"""The script `gpuvirt`: as gpuvirt.cli.main, but a Ctrl-C while it is being imported ends it without a word, too.

Imports nothing that is not there when Python has started.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130  # as shells say it: 128 + SIGINT


def main() -> int:
    """Runs the command line; returns the exit code."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored (nohup, a script's &)
    if ours:
        signal.signal(signal.SIGINT, _leave)
    from gpuvirt.cli.main import main as run

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if ours:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)  # nothing has been begun, or all is done
