# SPDX-License-Identifier: Apache-2.0
"""A second client process of the same driver: runs one function of a file of cases and talks in lines of JSON.

    peer.py FILE FUNCTION [JSON ARGUMENTS]

In the case: `other = peer(function, *arguments)`, then `other.hear()`, `other.say(value)`, `other.wait()`. The function
gets a Channel with the same two words, then the arguments.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.driver_calls import recorder

SUPPORT = Path(__file__).resolve().parent


class Channel:
    """Lines of JSON to and from another process."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._rest = reading, writing, b""

    def say(self, value: Any) -> None:
        os.write(self._writing, json.dumps(value).encode() + b"\n")

    def hear(self, limit: float = 60.0) -> Any:
        """What the other said next. Fails when it ended, or said nothing for `limit` seconds."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the other process said nothing for {limit} s"
            more = os.read(self._reading, 65536)
            assert more, "the other process has ended"
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)


class Peer(Channel):
    """The second process, from the first one's side."""

    def __init__(self, function: Callable[..., None], arguments: Sequence[Any], pass_fds: Sequence[int]) -> None:
        file, name = function.__code__.co_filename, function.__name__
        path = os.pathsep.join([str(SUPPORT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, __file__, file, name, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=pass_fds,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        super().__init__(self.process.stdout.fileno(), self.process.stdin.fileno())

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, limit: float = 60.0) -> int:
        """Exit code: 0 when the function returned."""
        return self.process.wait(limit)

    def close(self) -> None:
        """Ends it, however it is."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def main() -> None:
    file, name, arguments = sys.argv[1:]
    # What the function prints must not be taken for what it says.
    channel = Channel(os.dup(0), os.dup(1))
    recorder.watch_bindings()
    os.dup2(2, 1)
    spec = importlib.util.spec_from_file_location("cases_of_peer", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, name)(channel, *json.loads(arguments))


if __name__ == "__main__":
    main()
