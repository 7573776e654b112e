# SPDX-License-Identifier: Apache-2.0
"""Device memory between the processes of a job (legacy IPC): same bytes, charged once, not for other jobs."""

from __future__ import annotations

import signal

from support.host import Host

MIB = 1 << 20


def test_passed_on_while_another_job_takes_turns(machine: Host) -> None:
    """Three processes that need more than the GPU has; what is shared stays, everything else is swapped."""
    rival = machine.job("mixer.py", "--memory", "160", "--seconds", "5", name="rival")
    rival.wait_for("ready")
    pair = machine.job("shared.py", "--memory", "12", "--own", "48", "--rounds", "5", name="pair")
    assert pair.wait() == 0, machine.report()
    assert "result: OK" in pair.text
    assert rival.wait() == 0, machine.report()
    assert sum(machine.job_named(name)["out_bytes"] for name in ("rival", "pair")) > 0
    machine.until(lambda: machine.device_used() == 0, "the soft GPU to be empty", 10)


def test_another_job_is_refused_with_a_line(machine: Host) -> None:
    owner = machine.job("shared.py", "--offer", name="owner")
    handle = owner.wait_for("handle: ").split()[1]
    other = machine.job("shared.py", "--open", handle, name="other")
    assert other.wait() == 0, other.text
    assert "opened: CUDA_ERROR_NOT_PERMITTED" in other.text
    assert "belongs to another job" in other.text
    owner.kill(signal.SIGKILL)
    owner.wait()
    late = machine.job("shared.py", "--open", handle, name="late")
    assert late.wait() == 0, late.text
    assert "opened: CUDA_ERROR_INVALID_HANDLE" in late.text


def test_the_exporter_ends_and_its_memory_lives_on_charged_to_the_importer(machine: Host) -> None:
    pair = machine.job("shared.py", "--leave", name="pair")
    pair.wait_for("inherited: OK")
    machine.until(lambda: len(machine.job_named("pair")["pids"]) == 1, "the exporter to be forgotten")
    machine.until(lambda: 4 * MIB <= machine.job_named("pair")["charged"] <= 8 * MIB, "the charge", 2)
    pair.wait_for("closed")
    machine.until(lambda: machine.job_named("pair")["charged"] == 0, "the charge to end", 5)
    assert machine.device_used() == 0
    pair.kill(signal.SIGKILL)


def test_the_daemon_is_replaced_meanwhile(machine: Host) -> None:
    """What was offered is told to the next daemon; who waits for an answer gets it from that one."""
    pair = machine.job("shared.py", "--memory", "8", "--own", "8", "--seconds", "4", name="pair")
    pair.wait_for("round 1")
    assert machine.daemon is not None
    machine.daemon.kill(signal.SIGKILL)
    machine.daemon.wait()
    machine.start_daemon()
    assert pair.wait() == 0, machine.report()
    assert "result: OK" in pair.text


def test_the_job_shows_what_is_shared(machine: Host) -> None:
    owner = machine.job("shared.py", "--offer", name="owner")
    owner.wait_for("handle: ")
    machine.until(lambda: machine.job_named("owner")["charged"] > 0, "the charge")
    job = machine.job_named("owner")
    assert job["charged"] <= 8 * MIB, job
    assert job["resident"] == job["charged"], job


def test_exported_handles_are_charged_once_and_stay(machine: Host) -> None:
    """A descriptor of the program's own memory in another process of the job; a neighbour that needs the room."""
    rival = machine.job("mixer.py", "--memory", "224", "--seconds", "60", name="rival")
    rival.wait_for("step 1")
    pair = machine.job("exported.py", "--memory", "16", "--rounds", "3", "--pause", "0.2", name="pair")
    pair.wait_for("round 1")
    machine.until(lambda: len(machine.job_named("pair")["pids"]) == 2, "both processes")
    job = machine.job_named("pair")
    assert 16 * MIB <= job["charged"] <= 18 * MIB, job
    assert pair.wait() == 0, machine.report()
    assert "result: OK" in pair.text
    rival.stop()
