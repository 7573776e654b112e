# SPDX-License-Identifier: Apache-2.0
"""What NVML says about this machine's GPUs, asked in a process of its own.

NVML may hang in the kernel, and which library answers is decided when a process starts.

As a program (`python -m gpuvirt.cli.nvml_probe`) prints one JSON list, or one line on stderr and exit code 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuvirt.errors import DriverUnavailable

TIMEOUT_S = 10.0


def ask(folder: Path | None = None, environ: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """GPUs by NVML of `folder` (None: the loader's), with uuid, name, memory in bytes, driver version and processes.

    Raises DriverUnavailable when NVML cannot be loaded, fails, or does not answer in TIMEOUT_S seconds.
    """
    environment = dict(os.environ if environ is None else environ)
    environment.pop("GPUVIRT_JOB", None)  # what the driver says, also when this runs inside a job
    if folder is not None:
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(folder), environment.get("LD_LIBRARY_PATH", "")]))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gpuvirt.cli.nvml_probe"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DriverUnavailable(
            f"NVML did not answer within {TIMEOUT_S:.0f} s", "see the kernel log: the driver hangs"
        ) from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        raise DriverUnavailable(f"NVML failed: {reason}", "install the NVIDIA driver, or use the soft GPU")
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _gpus() -> list[dict[str, Any]]:
    import pynvml

    pynvml.nvmlInit()
    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        found.append(
            {
                "index": index,
                "uuid": _text(pynvml.nvmlDeviceGetUUID(handle)),
                "name": _text(pynvml.nvmlDeviceGetName(handle)),
                "memory_total": int(memory.total),
                "memory_used": int(memory.used),
                "driver_version": driver,
                "cuda_version": cuda,
                "processes": [{"pid": int(p.pid), "memory": p.usedGpuMemory} for p in processes],
            }
        )
    pynvml.nvmlShutdown()
    return found


def main() -> int:
    """Prints the JSON list."""
    try:
        print(json.dumps(_gpus()))
    except Exception as error:  # of any kind: the caller wants one line
        print(f"{error or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
