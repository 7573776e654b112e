# SPDX-License-Identifier: Apache-2.0
"""watched.py MIB[@GPU] COMMAND...: runs COMMAND beside a process with so many MiB that always has work for the GPU.

Prints `worker PID`, what COMMAND prints, `worker ended N`; the exit code is COMMAND's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# The soft GPU knows no CUDA_VISIBLE_DEVICES.
WORKER = """
import sys; sys.path.insert(0, {folder!r})
import mixer, cuda.bindings.driver as cu
get = cu.cuDeviceGet; cu.cuDeviceGet = lambda index: get({gpu})
sys.argv = ['mixer', '--memory', '{memory}', '--piece', '8', '--seconds', '60']; sys.exit(mixer.main())
"""


def main() -> int:
    memory, _, gpu = sys.argv[1].partition("@")
    code = WORKER.format(folder=str(Path(__file__).parent), gpu=int(gpu or 0), memory=int(memory))
    worker = subprocess.Popen([sys.executable, "-c", code, "mixer.py"], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    for line in worker.stdout:
        if "step 3" in line:
            break
    print(f"worker {worker.pid}", flush=True)
    ended = subprocess.run(sys.argv[2:], check=False).returncode
    worker.kill()
    print(f"worker ended {worker.wait()}", flush=True)
    return ended


if __name__ == "__main__":
    sys.exit(main())
