# SPDX-License-Identifier: Apache-2.0
"""State in memory, for tests: several schedulers of one process share it and take turns to lead."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gpuvirt_scheduler.store.base import Changes, NotLeader, Saved


@dataclass
class Shared:
    """What all of them see."""

    values: dict[str, bytes] = field(default_factory=dict)
    revision: int = 0
    term: int = 0
    leader: str = ""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def depose(self, reason: str = "deposed") -> None:
        """Who leads does not any more, and is told."""
        async with self.changed:
            self.leader = ""
            self.changed.notify_all()


class MemoryStore:
    """One scheduler's way to it."""

    def __init__(self, shared: Shared, name: str) -> None:
        self._shared, self._name, self._term = shared, name, 0

    async def lead(self) -> int:
        shared = self._shared
        async with shared.changed:
            await shared.changed.wait_for(lambda: not shared.leader)
            shared.leader = self._name
            shared.term += 1
            self._term = shared.term
            return shared.term

    async def lost(self) -> str:
        async with self._shared.changed:
            await self._shared.changed.wait_for(lambda: not self._leads(self._term))
            return f"{self._shared.leader or 'nobody'} leads now"

    async def leader(self) -> str:
        return self._shared.leader

    async def load(self) -> Saved:
        return Saved(dict(self._shared.values), self._shared.revision)

    async def commit(self, term: int, changes: Changes) -> int:
        shared = self._shared
        async with shared.changed:
            if not self._leads(term):
                raise NotLeader(f"term {term} is over: {shared.leader or 'nobody'} leads in term {shared.term}")
            shared.values.update(changes.puts)
            for key in changes.deletes:
                shared.values.pop(key, None)
            shared.revision += 1
            return shared.revision

    async def close(self) -> None:
        async with self._shared.changed:
            if self._leads(self._term):
                self._shared.leader = ""
                self._shared.changed.notify_all()

    def _leads(self, term: int) -> bool:
        return term > 0 and term == self._shared.term and self._shared.leader == self._name
