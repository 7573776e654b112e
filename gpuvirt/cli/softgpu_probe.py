# SPDX-License-Identifier: Apache-2.0
"""What the board of a soft GPU holds, asked in a process of its own: which board it is, is the environment's to say.

As a program (`python -m gpuvirt.cli.softgpu_probe LIBRARY`) it prints one JSON object, or says why not; exit code 1.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuvirt.errors import DriverUnavailable

TIMEOUT_S = 10.0
LOG_PREFIX = "gpuvirt soft GPU: "  # of native/softgpu/log.c


def describe(library: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The board as native/softgpu/describe.c writes it; it is made when there is none.

    Raises DriverUnavailable, with the reason that the library gave, when there is none and none can be made.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gpuvirt.cli.softgpu_probe", str(library)],
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DriverUnavailable(
            f"the soft GPU did not answer within {TIMEOUT_S:.0f} s", "end the programs that use it, then remove it"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its library ended with code {done.returncode}"]
        reason = next((line for line in lines if line.startswith(LOG_PREFIX)), lines[-1]).removeprefix(LOG_PREFIX)
        raise DriverUnavailable(f"no soft GPU: {reason}", "see 'gpuvirt soft-gpu create --help'")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def main() -> int:
    """Prints the JSON object."""
    function = ctypes.CDLL(sys.argv[1]).gv_softgpu_describe
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    room = 1 << 16
    while True:
        text = ctypes.create_string_buffer(room)
        length = int(function(text, room))
        if length == 0:
            return 1
        if length < room:
            print(text.value.decode())
            return 0
        room = length + 4096  # more processes may come meanwhile


if __name__ == "__main__":
    sys.exit(main())
