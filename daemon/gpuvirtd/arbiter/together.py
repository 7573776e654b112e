# SPDX-License-Identifier: Apache-2.0
"""Jobs on several GPUs: the arbiters of a host decide one after the other until they agree."""

from __future__ import annotations

from collections.abc import Iterable

from gpuvirt.arbitration import together
from gpuvirt.arbitration.facts import Gpu
from gpuvirt.clock import Clock
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.log import Logger


class Together:
    """All arbiters of a host. Where no job has processes on several GPUs it does nothing."""

    def __init__(self, arbiters: Iterable[Arbiter], clock: Clock, log: Logger) -> None:
        self._arbiters = {arbiter.gpu.name: arbiter for arbiter in arbiters}
        self._gpus = [arbiter.gpu for arbiter in self._arbiters.values()]
        self._clock, self._log = clock, log
        self._gangs = self._looking = False
        for arbiter in self._arbiters.values():
            arbiter.gather, arbiter.look_around = self.gather, self.look

    def gather(self) -> None:
        """Processes came or went."""
        present = [key for gpu in self._gpus for key, here in gpu.contenders.items() if here.clients]
        if self._gangs or len(present) != len(set(present)):
            self._settle()
            self._gangs = together.form(self._gpus)

    def look(self) -> None:
        """Something was decided on one GPU: whatever follows from it on others."""
        if not self._gangs or self._looking:
            return
        self._looking = True
        try:
            self._settle()
            if not together.settle(self._gpus, self._turn, self._clock.now):
                self._log.warning("gangs_not_settled")
        finally:
            self._looking = False

    def _settle(self) -> None:
        for arbiter in self._arbiters.values():
            arbiter.settle()
            arbiter.read_hints()

    def _turn(self, gpu: Gpu) -> None:
        self._arbiters[gpu.name].turn()
