# SPDX-License-Identifier: Apache-2.0
"""A job of high priority has the GPU while another's work is still on it; both compute what they would alone."""

from __future__ import annotations

import pytest

from support.host import Host, Program, host

SETTINGS = '[time]\nquantum = "10ms"\ndrain_budget = "50ms"\npolicy = "priority"\n'


def result(program: Program, machine: Host) -> str:
    assert program.wait(90) == 0, machine.report()
    return next(line for line in program.lines if line.startswith("result: "))


def both(machine: Host) -> tuple[Program, Program]:
    """A service that waits for work, and a training whose kernel ends only when it is let go."""
    service = machine.job("beside.py", "waits", str(machine.folder / "work"), name="service", options=HIGH)
    service.wait_for("ready")
    training = machine.job("beside.py", "holds", str(machine.folder / "let go"), name="training")
    training.wait_for("launched")
    return service, training


HIGH = ("--priority", "high")


@pytest.mark.timeout(150)
def test_the_service_has_the_gpu_while_the_training_drains() -> None:
    with host(settings=SETTINGS) as machine:
        (machine.folder / "at once").touch()
        alone = result(machine.bare("beside.py", "holds", str(machine.folder / "at once")), machine)
        service, training = both(machine)
        (machine.folder / "work").touch()
        assert result(service, machine) == alone, "the other's kernel cannot have ended"
        assert training.running and not any("result" in line for line in training.lines)
        (machine.folder / "let go").touch()
        assert result(training, machine) == alone
        assert machine.job_named("training")["overrun_s"] > 0, "it is charged for what was beside the service"


@pytest.mark.timeout(150)
def test_without_overlap_it_waits_for_the_end_of_the_drain() -> None:
    with host(settings=f'{SETTINGS}overlap = "never"') as machine:
        service, training = both(machine)
        (machine.folder / "work").touch()
        machine.until(lambda: "drain" in str(machine.job_named("training")["reason"]), "the training to be late")
        assert machine.job_named("service")["state"] == "waiting", machine.report()
        assert service.running and not any("result" in line for line in service.lines)
        (machine.folder / "let go").touch()
        assert result(service, machine) == result(training, machine)
