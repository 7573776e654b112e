# SPDX-License-Identifier: Apache-2.0
"""Command: `python3 -m gpuvirt.softgpu in.ptx [more.ptx ...] -o out.c`; also runs by file path.

Exit codes: 0 done, 2 the PTX cannot be translated (one line on standard error says why), 1 anything else.
`--version` prints TRANSLATOR_VERSION; `--include DIR` says where the runtime headers are that belong to it.
"""

from __future__ import annotations

import importlib
import os
import sys

_USAGE = "usage: gpuvirt.softgpu [--version] [--include DIR] FILE.ptx [FILE.ptx ...] -o FILE.c"


def _package() -> str:
    """Name under which this package's modules can be imported, also when run by file path."""
    if __package__:
        return __package__
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]  # our parser.py is not for others
    package = type(sys)("gpuvirt_softgpu")
    package.__path__ = [here]
    sys.modules["gpuvirt_softgpu"] = package
    return "gpuvirt_softgpu"


def _fail(message: str, code: int = 1) -> int:
    print(message, file=sys.stderr)
    return code


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    inputs: list[str] = []
    output = include = ""
    version = False
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-o", "--include"):
            value = next(rest, "")
            if not value:
                return _fail(_USAGE)
            output, include = (value, include) if argument == "-o" else (output, value)
        elif argument == "--version":
            version = True
        elif argument.startswith("-") and argument != "-":
            return _fail(_USAGE)
        else:
            inputs.append(argument)
    package = _package()
    if version:
        print(importlib.import_module(package + ".version").translator_version(include))
        return 0
    if not inputs or not output:
        return _fail(_USAGE)
    syntax = importlib.import_module(package + ".syntax")
    translate = importlib.import_module(package + ".translate")
    try:
        texts = []
        for path in inputs:
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                texts.append(file.read())
        text = translate.translate(texts)
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")
    except syntax.PtxError as error:
        return _fail(str(error), 2)
    except RecursionError:
        return _fail("line 0: operands, signs or scopes are nested too deeply", 2)
    except Exception as error:  # a bug here must reach the JIT error log as one line, not as a traceback
        return _fail(f"line 0: the translator failed: {type(error).__name__}: {error}".replace("\n", " "), 2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
