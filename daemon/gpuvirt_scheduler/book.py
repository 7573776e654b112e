# SPDX-License-Identifier: Apache-2.0
"""All state of a leader, as values; what has changed since the last commit."""

from __future__ import annotations

import msgspec

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.state import ENDED, Job, Node, Queue, Rules, Snapshot
from gpuvirt_scheduler.store.base import Changes, Saved

KEPT = 1000  # jobs that have ended, the last so many


class Book:
    """Jobs, hosts and queues."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.nodes: dict[str, Node] = {}
        self.queues: dict[str, Queue] = {}
        self.requests: dict[str, str] = {}  # id of a request: job
        self.number = 0  # of the last job
        self._puts: dict[str, bytes] = {}
        self._deletes: set[str] = set()

    def read(self, saved: Saved) -> None:
        """Everything from the store. Raises ConfigError where something in it is of another version."""
        for key, value in saved.values.items():
            try:
                self._read(key, value)
            except msgspec.DecodeError as error:
                raise ConfigError(
                    f"'{key}' in the store cannot be read: {error}", "use the version that wrote it"
                ) from None

    def _read(self, key: str, value: bytes) -> None:
        kind, _, name = key.partition("/")
        if kind == "jobs":
            job = msgspec.json.decode(value, type=Job)
            self.jobs[name], self.requests[job.request] = job, name
        elif kind == "nodes":
            self.nodes[name] = msgspec.json.decode(value, type=Node)
        elif kind == "queues":
            self.queues[name] = msgspec.json.decode(value, type=Queue)
        elif key == "meta/number":
            self.number = msgspec.json.decode(value, type=int)

    def snapshot(self) -> Snapshot:
        """What decisions are made from."""
        live = {name: job for name, job in self.jobs.items() if job.phase not in ENDED}
        return Snapshot(live, self.nodes, self.queues, self.rules)

    def put_job(self, job: Job) -> None:
        if self.jobs.get(job.id) == job:
            return
        self.jobs[job.id] = job
        self.requests[job.request] = job.id
        self._put(f"jobs/{job.id}", job)
        if job.phase in ENDED:
            self._forget()

    def put_node(self, node: Node) -> None:
        if self.nodes.get(node.name) != node:
            self.nodes[node.name] = node
            self._put(f"nodes/{node.name}", node)

    def put_queue(self, queue: Queue) -> None:
        if self.queues.get(queue.name) != queue:
            self.queues[queue.name] = queue
            self._put(f"queues/{queue.name}", queue)

    def next_name(self) -> str:
        self.number += 1
        self._puts["meta/number"] = msgspec.json.encode(self.number)
        return f"c{self.number}"

    def take_changes(self) -> Changes | None:
        """What the next commit writes; None: nothing."""
        if not self._puts and not self._deletes:
            return None
        changes = Changes(self._puts, frozenset(self._deletes))
        self._puts, self._deletes = {}, set()
        return changes

    def _put(self, key: str, value: object) -> None:
        self._puts[key] = msgspec.json.encode(value)
        self._deletes.discard(key)

    def _forget(self) -> None:
        ended = sorted((job.ended or 0.0, name) for name, job in self.jobs.items() if job.phase in ENDED)
        for _, name in ended[:-KEPT]:
            self.requests.pop(self.jobs.pop(name).request, None)
            self._puts.pop(f"jobs/{name}", None)
            self._deletes.add(f"jobs/{name}")
