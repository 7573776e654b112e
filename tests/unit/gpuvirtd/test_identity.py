# SPDX-License-Identifier: Apache-2.0
"""Processes are known by more than a number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from gpuvirtd import identity


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def test_peer_is_who_the_kernel_says():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = identity.peer_process(ours)
    assert (process.pid, process.uid) == (os.getpid(), os.geteuid())
    assert process.start == identity.start_time(os.getpid())
    assert process.alive()
    assert not os.get_inheritable(process.pidfd)
    process.close()
    process.close()
    ours.close()
    theirs.close()


def test_death_is_seen(child):
    process = identity.open_process(child.pid, uid=os.geteuid())
    assert process.alive()
    child.kill()
    child.wait()
    assert not process.alive()
    process.close()


def test_another_process_with_the_same_number_is_not_taken(child):
    start = identity.start_time(child.pid)
    with pytest.raises(identity.ProcessGone):
        identity.open_process(child.pid, start=start - 1)
    with pytest.raises(identity.ProcessGone):
        identity.open_process(child.pid, uid=os.geteuid() + 1)
    with pytest.raises(identity.ProcessGone):
        identity.open_process(1 << 30)


def test_descendants(child):
    assert identity.is_descendant(child.pid, os.getpid())
    assert identity.is_descendant(child.pid, child.pid)
    assert not identity.is_descendant(os.getpid(), child.pid)
    assert not identity.is_descendant(1 << 30, os.getpid())
    assert identity.parent_of(child.pid) == os.getpid()


def test_boot_id():
    assert len(identity.boot_id()) == 36
