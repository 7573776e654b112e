# SPDX-License-Identifier: Apache-2.0
"""A stopped process: `status` names it and the way out, and who does not need it goes on."""

from __future__ import annotations

import os
import signal

from fake_shim import MIB, until


def test_stopped_while_it_is_asked_to_evict(daemon, attach):
    shims = {name: attach(name) for name in "abc"}
    (a, ja), (b, jb), (c, jc) = shims.values()
    a.want(400 * MIB)
    until(lambda: a.view()["resident"] == 400 * MIB, what="memory")
    a.finish()
    os.kill(a.pid, signal.SIGSTOP)
    try:
        # It held the GPU when it was stopped: it cannot say that it has drained.
        b.want(400 * MIB)
        reason = until(lambda: (r := daemon.job(jb)["reason"]).find("stopped") > 0 and r, what="the reason")
        assert reason.startswith(f"{ja} holds GPU 0")
        assert f"process {a.pid} is stopped (go on: kill -CONT {a.pid})" in reason
        assert f"process {a.pid} is stopped" in daemon.job(ja)["reason"]  # the culprit says so, too
    finally:
        os.kill(a.pid, signal.SIGCONT)
    until(lambda: b.view()["word"] == "OPEN", what="b's turn")
    b.finish()
    os.kill(b.pid, signal.SIGSTOP)
    try:
        b_is_silent(daemon, b, jb, c, jc)
        a.want(400 * MIB)
        until(lambda: daemon.job(ja)["state"] == "waiting" and daemon.job(ja)["reason"], what="a reason")
        b.kill()  # a stopped process can be killed, too
        until(lambda: a.view()["word"] in ("OPEN", "GRANTED"), what="a's turn")
    finally:
        b.kill()
    until(lambda: daemon.job(jb)["state"] == "ended", what="the end")


def b_is_silent(daemon, b, jb, c, jc):
    c.want(10 * MIB)
    reason = until(lambda: (r := daemon.job(jc)["reason"]).find("stopped") > 0 and r, what="the reason")
    assert reason.startswith(f"{jb} holds GPU 0")
