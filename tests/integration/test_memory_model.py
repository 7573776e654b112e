# SPDX-License-Identifier: Apache-2.0
"""Random allocations, frees, copies, launches, limits and kills in several jobs against a plain model.

GPUVIRT_MODEL_STEPS (default 10000) and GPUVIRT_MODEL_SEED choose another run; a failure prints both and the last steps.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from support.host import host
from support.memory_model import DEVICE, Model
from support.swapping import Rig

STEPS = int(os.environ.get("GPUVIRT_MODEL_STEPS", "10000"))
SEED = int(os.environ.get("GPUVIRT_MODEL_SEED", "1"))
JOBS = 3
ACCOUNTS_EVERY, CONTENTS_EVERY, SHOWN = 500, 1000, 60


def run(model: Model, rig: Rig) -> None:
    """All steps, and what must hold in between and at the end."""
    for number in range(1, STEPS + 1):
        model.step()
        if number % CONTENTS_EVERY == 0 or number == STEPS:
            model.check_contents()
        if number % ACCOUNTS_EVERY == 0 or number == STEPS:
            model.settle()
            model.check_accounts()
            rig.machine.until(lambda: rig.disagreement() == "", "the ledgers to agree", 10.0)
    model.end()
    rig.nothing_is_left()


def test_random_histories() -> None:
    """Contents, ledgers and budgets agree at all times."""
    with host(DEVICE, '[time]\nquantum = "5ms"\nswap_share = 0.5') as machine, contextlib.closing(Rig(machine)) as rig:
        model = Model(machine, SEED, JOBS)
        try:
            run(model, rig)
        except AssertionError as error:
            last = "\n".join(model.history[-SHOWN:])
            pytest.fail(
                f"after {len(model.history)} steps (GPUVIRT_MODEL_SEED={SEED} GPUVIRT_MODEL_STEPS={STEPS}):\n"
                f"{rig.disagreement()}\n{error}\nthe last steps:\n{last}",
                pytrace=False,
            )
        finally:
            print(model.counts)
            model.close()
        assert sum(row["out_bytes"] for row in machine.status()["jobs"]) > 0, "nothing was swapped"
