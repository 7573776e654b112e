# SPDX-License-Identifier: Apache-2.0
"""A job that allocates what a test tells it to: tests/programs/fixed.py."""

from __future__ import annotations

import os

from support.host import Host, Program


class Teller:
    """One running program; `ask` waits for its answer, `tell` does not."""

    def __init__(self, machine: Host, name: str, *options: str) -> None:
        self.name = name
        self.pipe = machine.folder / f"{name}.pipe"
        os.mkfifo(self.pipe)
        self.program: Program = machine.job("fixed.py", str(self.pipe), name=name, options=options)
        self.fd = os.open(self.pipe, os.O_RDWR)  # both ways: neither side waits for the other to open it
        self.count = 0
        self.program.wait_for("ready")

    def tell(self, line: str) -> int:
        """Sends a line; its number."""
        os.write(self.fd, f"{line}\n".encode())
        self.count += 1
        return self.count - 1

    def answer(self, number: int, limit: float = 20.0) -> str:
        return self.program.wait_for(f"{number}: ", limit).partition(": ")[2]

    def ask(self, line: str, limit: float = 20.0) -> str:
        return self.answer(self.tell(line), limit)

    def answered(self, number: int) -> bool:
        return any(line.startswith(f"{number}: ") for line in self.program.lines)

    def end(self) -> int:
        self.tell("end")
        code = self.program.wait()
        os.close(self.fd)
        return code
