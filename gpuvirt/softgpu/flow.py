# SPDX-License-Identifier: Apache-2.0
"""Control flow of one function: basic blocks, where paths join again, where threads may still wait."""

from __future__ import annotations

from .inline import yields
from .syntax import Function, Instruction

END = -1
"""The number of the block behind all exits."""

_LEAVING = ("ret", "exit", "trap", "brkpt")


class Flow:
    """Blocks are numbered in the order of the text; block n is body[start[n]:end[n]]."""

    def __init__(self, function: Function) -> None:
        body = self.body = function.body
        starts = {0}
        for index, instruction in enumerate(body):
            if instruction.base == "label":
                starts.add(index)
            elif instruction.base in ("bra", "brx", *_LEAVING):
                starts.add(index + 1)
        self.start = sorted(start for start in starts if start < len(body))
        self.end = [*self.start[1:], len(body)]
        self.block_of_label = {
            body[start].opcode: number for number, start in enumerate(self.start) if body[start].base == "label"
        }
        self.next = [self._following(number, function) for number in range(len(self.start))]
        self.waits = [any(yields(i) for i in body[s:e]) for s, e in zip(self.start, self.end)]  # noqa: B905 (Python 3.9)
        self.may_wait = self._may_wait()

    def last(self, number: int) -> Instruction:
        """The instruction at the end of a block."""
        return self.body[self.end[number] - 1]

    def _following(self, number: int, function: Function) -> list[int]:
        """Blocks that may come after a block; for a guarded branch first the target, then the fall through."""
        last = self.last(number)
        through = number + 1 if number + 1 < len(self.start) else END
        if last.base in _LEAVING:
            following = [END]
        elif last.base == "bra":
            following = [self.block_of_label[last.operands[0].name]]
        elif last.base == "brx":
            following = [self.block_of_label[t] for t in function.tables[last.operands[1].name]]
        else:
            return [through]
        return [*following, through] if last.guard else following

    def _may_wait(self) -> list[bool]:
        """For each block: whether a thread at its start may still come to a wait."""
        result = list(self.waits)
        changed = True
        while changed:
            changed = False
            for number, following in enumerate(self.next):
                if not result[number] and any(n != END and result[n] for n in following):
                    result[number] = changed = True
        return result

    def reach(self, starts: list[int], stop: int) -> set[int]:
        """Blocks on paths from `starts` that do not go through `stop`."""
        found: set[int] = set()
        todo = [n for n in starts if n not in (stop, END)]
        while todo:
            number = todo.pop()
            if number in found:
                continue
            found.add(number)
            todo += [n for n in self.next[number] if n not in (stop, END)]
        return found


def joins(following: dict[int, list[int]]) -> dict[int, int]:
    """The immediate post-dominator of each block of a graph; END where paths join only behind all exits."""
    order: list[int] = []  # of the reversed graph from END: a block comes after one of its successors
    before: dict[int, list[int]] = {}
    for number, targets in following.items():
        for target in targets:
            before.setdefault(target, []).append(number)
    seen = {END}
    stack = [(END, iter(before.get(END, [])))]
    postorder: list[int] = []
    while stack:
        node, rest = stack[-1]
        for number in rest:
            if number not in seen:
                seen.add(number)
                stack.append((number, iter(before.get(number, []))))
                break
        else:
            stack.pop()
            postorder.append(node)
    order = postorder[::-1]
    position = {node: n for n, node in enumerate(order)}
    result = {END: END}
    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            found: int | None = None
            for target in following[node]:
                if target not in result:
                    continue
                found = target if found is None else _common(found, target, result, position)
            if found is not None and result.get(node) != found:
                result[node] = found
                changed = True
    return {node: result.get(node, END) for node in following}


def _common(a: int, b: int, result: dict[int, int], position: dict[int, int]) -> int:
    while a != b:
        while position[a] > position[b]:
            a = result[a]
        while position[b] > position[a]:
            b = result[b]
    return a
