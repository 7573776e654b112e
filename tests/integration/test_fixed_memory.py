# SPDX-License-Identifier: Apache-2.0
"""Memory that gpuvirt does not move: charged, refused beyond the quota, and otherwise waited for."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from support.host import BIN, Host, host
from support.teller import Teller

MIB = 1 << 20
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


def fixed_of(machine: Host, name: str) -> int:
    return int(machine.job_named(name)["native"])


@pytest.mark.parametrize("kind", ["array", "mipmap", "managed"])
def test_it_is_charged_refused_beyond_the_quota_and_given_back(machine: Host, kind: str) -> None:
    job = Teller(machine, "one", "--memory", "96M")
    assert job.ask(f"{kind} 64") == "ok"
    machine.until(lambda: fixed_of(machine, "one") == 64 * MIB, "64 MiB of fixed memory")
    assert job.ask("info") == "32 96"
    assert OUT_OF_MEMORY in job.ask(f"{kind} 40")
    assert OUT_OF_MEMORY in job.ask("plain 40")
    assert job.ask("plain 24") == "ok"
    assert job.ask("free 0") == "ok"
    assert job.ask(f"{kind} 40") == "ok"
    assert job.ask("info") == "32 96"
    assert job.ask("mix") == "ok"
    assert job.end() == 0


def test_a_context_takes_its_fixed_memory_with_it(machine: Host) -> None:
    job = Teller(machine, "one", "--memory", "96M")
    for kind in ("array", "mipmap", "managed"):
        assert job.ask(f"{kind} 16") == "ok"
    assert job.ask("info") == "48 96"
    assert job.ask("reset") == "ok"
    assert job.ask("info") == "96 96"
    machine.until(lambda: fixed_of(machine, "one") == 0, "nothing to be fixed")
    assert job.end() == 0


def test_the_heap_of_kernels_counts_beyond_its_default(machine: Host) -> None:
    job = Teller(machine, "one", "--memory", "96M")
    assert job.ask("heap 40") == "ok"
    assert job.ask("info") == "64 96"
    assert OUT_OF_MEMORY in job.ask("heap 200")
    assert job.ask("info") == "64 96"
    assert job.ask("free 0") == "ok"
    assert job.ask("info") == "96 96"
    assert job.end() == 0


def test_within_the_quota_it_waits_for_others_to_be_swapped_out(machine: Host) -> None:
    """176 MiB of plain memory of one job and an array of 128 of another do not fit into 256 at once."""
    mixer = machine.job("mixer.py", "--memory", "176", "--seconds", "3", name="mixer")
    mixer.wait_for("step 1")
    job = Teller(machine, "arrays")
    assert job.ask("array 128") == "ok"
    assert machine.job_named("mixer")["out_bytes"] >= 40 * MIB
    assert machine.job_named("arrays")["out_bytes"] == 0
    # Now the mixer waits: the array stays where it is.
    reason = machine.until(
        lambda: machine.job_named("mixer")["reason"] if machine.job_named("mixer")["state"] == "waiting" else "",
        "the mixer to wait",
    )
    machine.until(lambda: "cannot be moved: CUDA arrays" in machine.job_named("mixer")["reason"], "the reason")
    assert reason
    assert job.ask("mix") == "ok"
    assert job.ask("free 0") == "ok"
    assert mixer.wait() == 0, machine.report()
    assert "result: OK" in mixer.text
    assert job.end() == 0


def test_code_and_its_variables_find_room_on_a_full_device(machine: Host) -> None:
    """Their size is the driver's secret: they are no memory of the job, but what others can give up gives way."""
    mixer = machine.job("mixer.py", "--memory", "230", "--seconds", "3", name="mixer")
    mixer.wait_for("step 1")
    job = Teller(machine, "module")
    assert job.ask("module 48") == "ok"
    assert job.ask("mix") == "ok"
    assert OUT_OF_MEMORY in job.ask("module 300")
    assert job.ask("free 0") == "ok"
    machine.until(lambda: fixed_of(machine, "module") == 0, "the room to be given back")
    assert job.end() == 0
    assert mixer.wait() == 0, machine.report()
    assert "result: OK" in mixer.text


def test_who_waits_for_fixed_memory_of_others_goes_on_when_it_is_freed(machine: Host) -> None:
    first, second = Teller(machine, "first"), Teller(machine, "second")
    assert first.ask("array 150") == "ok"
    waiting = second.tell("array 150")
    machine.until(
        lambda: "holds 150 MiB that cannot be moved: CUDA arrays" in machine.job_named("second")["reason"],
        "the second to say why it waits",
    )
    assert not second.answered(waiting)
    assert first.ask("mix") == "ok"  # who waits is in nobody's way
    assert first.ask("free 0") == "ok"
    assert second.answer(waiting) == "ok"
    assert (first.end(), second.end()) == (0, 0)


def test_one_process_does_not_take_the_room_of_its_own_extents(machine: Host) -> None:
    """Plain memory of the job itself that is absent comes back beside the array."""
    job = Teller(machine, "one")
    assert job.ask("plain 96") == "ok"
    assert job.ask("array 96") == "ok"
    assert job.ask("mix") == "ok"
    other = machine.job("mixer.py", "--memory", "128", "--steps", "2", name="other")
    assert other.wait() == 0, machine.report()
    assert job.ask("mix") == "ok"
    assert job.end() == 0


def test_while_the_process_captures_it_does_not_wait(machine: Host) -> None:
    """The other job was promised all of the device and uses some of it: there is memory, and no allowance."""
    other = Teller(machine, "other")
    assert other.ask("plain 32") == "ok"
    assert other.ask("mix") == "ok"
    job = Teller(machine, "captures")
    assert job.ask("capture") == "ok"
    began = time.monotonic()
    assert job.ask("array 48") == "ok"
    assert time.monotonic() - began < 1
    assert OUT_OF_MEMORY in job.ask("array 240")
    assert job.ask("captured") == "ok"
    assert job.ask("mix") == "ok"
    machine.until(lambda: fixed_of(machine, "captures") == 48 * MIB, "the daemon to know of it")
    assert other.ask("mix") == "ok"
    assert (job.end(), other.end()) == (0, 0)


def test_pinned_host_memory_has_a_budget() -> None:
    with host(settings='[memory]\npinned_per_process = "32M"') as machine:
        job = Teller(machine, "one")
        assert job.ask("pinned 24") == "ok"
        assert OUT_OF_MEMORY in job.ask("register 16")
        assert job.ask("register 8") == "ok"
        assert OUT_OF_MEMORY in job.ask("pinned 1")
        machine.until(lambda: machine.job_named("one")["pinned"] == 32 * MIB, "32 MiB to be pinned")
        assert job.ask("free 0") == "ok"
        assert job.ask("pinned 20") == "ok"
        assert job.end() == 0


def test_no_memory_for_a_stranger_is_asked_for_again(machine: Host) -> None:
    """A process outside gpuvirt takes the room that was promised: others are swapped out for it."""
    idle = machine.job("mixer.py", "--memory", "96", "--steps", "1", "--pause", "600", name="idle")
    idle.wait_for("step 1")
    job = Teller(machine, "arrays")
    assert job.ask("array 8") == "ok"
    stranger = machine.bare("mixer.py", "--memory", "96", "--seconds", "30")
    stranger.wait_for("ready")
    began = time.monotonic()
    assert job.ask("array 64") == "ok", machine.report()
    assert time.monotonic() - began < 10
    assert job.end() == 0


def test_describe_says_what_stays_and_why(machine: Host) -> None:
    job = Teller(machine, "mixed", "--memory", "200M")
    for line in ("array 32", "array 16", "managed 8", "plain 32", "pinned 4"):
        assert job.ask(line) == "ok"
    assert job.ask("mix") == "ok"

    def told(word: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "gpuvirt"), "describe", word, *options]
        return subprocess.run(command, env=machine.environ(), capture_output=True, text=True, timeout=30, check=False)

    answer = json.loads(told("mixed", "-o", "json").stdout)
    arrays, managed = answer["fixed"]
    assert (arrays["kind"], arrays["bytes"], arrays["pieces"]) == ("arrays", 48 * MIB, 2)
    assert (managed["kind"], managed["bytes"], managed["pieces"]) == ("managed", 8 * MIB, 1)
    (process,) = answer["processes"]
    assert process["pid"] == job.program.child_pid()
    assert process["fixed"] == 56 * MIB
    assert process["charged"] >= 88 * MIB
    assert process["pinned"] == answer["pinned"] == 4 * MIB
    assert json.loads(told(answer["job"].removeprefix("j"), "-o", "json").stdout)["name"] == "mixed"
    text = told("mixed").stdout
    assert "arrays and mipmaps have no address that could be kept" in text
    assert "the driver itself moves it" in text
    wrong = told("nobody")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "gpuvirt describe: error: there is no job 'nobody'; see: gpuvirt ps -a\n"
    assert job.end() == 0
    machine.until(lambda: machine.job_named("mixed")["state"] == "ended", "the job to end")
    assert "ended" in told("mixed").stdout


def test_arrays_come_and_go_beside_jobs_that_are_swapped(machine: Host) -> None:
    """Four jobs of 96 to 150 MiB on 256: all bits right, nobody out of memory, nothing left in any account."""
    mixers = [
        machine.job("mixer.py", "--memory", "112", "--steps", "4", "--seed", str(n), name=f"m{n}") for n in (1, 2)
    ]
    tellers = [Teller(machine, f"t{n}") for n in (1, 2)]
    rounds = 0
    while any(mixer.running for mixer in mixers) or rounds < 4:
        numbers = [(t, [t.tell(line) for line in ("array 64", f"free {rounds}")]) for t in tellers]
        for teller, pair in numbers:
            for number in pair:
                assert teller.answer(number, 40) == "ok", machine.report()
        rounds += 1
    for mixer in mixers:
        assert mixer.wait() == 0, machine.report()
        assert "result: OK" in mixer.text
    for teller in tellers:
        machine.until(lambda t=teller: fixed_of(machine, t.name) == 0, "no array to be left")
        assert teller.end() == 0
    machine.until(lambda: machine.device_used() == 0, "the device to be empty")
