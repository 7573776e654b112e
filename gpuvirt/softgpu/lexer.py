# SPDX-License-Identifier: Apache-2.0
"""PTX text to tokens."""

from __future__ import annotations

import re
from bisect import bisect_right

from .syntax import PtxError

_TOKEN = re.compile(
    r"[ \t\r\n]+|//[^\n]*|/\*.*?\*/|\.(?:loc|file)\b[^\n]*"  # no token: space, comments, debug lines without `;`
    r'|("(?:[^"\\\n]|\\.)*"'
    r"|0[fF][0-9A-Fa-f]{8}|0[dD][0-9A-Fa-f]{16}|0[xX][0-9A-Fa-f]+U?"
    r"|\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\d+U?"
    r"|\.[A-Za-z_]\w*"  # a directive or a type; `.reg.b16` without a space is two
    r"|[.%$A-Za-z_][\w$.]*(?:::\w[\w.]*)*"
    r"|<<|>>|.)",
    re.S,
)

_WORD_START = frozenset("%$_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Tokens:
    """The tokens of one text and a position in them."""

    __slots__ = ("_newlines", "_starts", "_text", "index", "items")

    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines: list[int] | None = None
        self.items: list[str] = []
        self._starts: list[int] = []
        for match in _TOKEN.finditer(text):
            token = match.group(1)
            if token is not None:
                self.items.append(token)
                self._starts.append(match.start(1))
        self.items += ["", ""]  # end of text, and one to look ahead
        self._starts += [len(text)] * 2
        self.index = 0

    def line(self, index: int = -1) -> int:
        """1-based line of a token, by default of the current one."""
        if self._newlines is None:
            self._newlines = [match.start() for match in re.finditer("\n", self._text)]
        start = self._starts[min(index if index >= 0 else self.index, len(self._starts) - 1)]
        return bisect_right(self._newlines, start) + 1

    def error(self, message: str) -> PtxError:
        """An error at the current token."""
        return PtxError(self.line(), message)

    def peek(self) -> str:
        """The current token; empty at the end of the text."""
        return self.items[self.index]

    def next(self) -> str:
        """The current token, which is consumed."""
        token = self.items[self.index]
        if not token:
            raise self.error("unexpected end of the PTX text")
        self.index += 1
        return token

    def accept(self, token: str) -> bool:
        """Consumes `token` if it is the current one."""
        if self.items[self.index] == token:
            self.index += 1
            return True
        return False

    def expect(self, token: str) -> None:
        """Consumes `token`; anything else is an error."""
        if self.items[self.index] != token:
            raise self.error(f"expected '{token}', found '{self.peek() or 'end of text'}'")
        self.index += 1

    def name(self) -> str:
        """Consumes an identifier."""
        token = self.peek()
        if not token or token[0] not in _WORD_START:
            raise self.error(f"expected a name, found '{token or 'end of text'}'")
        self.index += 1
        return token

    def integer(self) -> int:
        """Consumes an integer constant, possibly negative."""
        negative = self.accept("-")
        token = self.peek()
        value = parse_integer(token)
        if value is None:
            raise self.error(f"expected an integer, found '{token or 'end of text'}'")
        self.index += 1
        return -value if negative else value

    def skip_block(self) -> None:
        """Consumes a balanced `{ ... }`."""
        self.expect("{")
        depth = 1
        while depth:
            token = self.next()
            depth += (token == "{") - (token == "}")


def parse_integer(token: str) -> int | None:
    """Value of an integer token (decimal, octal, hexadecimal, optional U), or None."""
    if not token or token[0] not in "0123456789" or token[1:2] in ("f", "F", "d", "D"):
        return None
    token = token.rstrip("U")
    try:
        if token[:2] in ("0x", "0X"):
            return int(token, 16)
        if len(token) > 1 and token[0] == "0":
            return int(token, 8)
        return int(token)
    except ValueError:
        return None
