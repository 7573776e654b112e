# SPDX-License-Identifier: Apache-2.0
"""One probe in a process of its own: python -m real_gpu.probe NAME prints its answer or its error as JSON."""

from __future__ import annotations

import importlib
import json
import sys

PROBES = {
    "pointers": ("symbols", "pointers", "cuGetProcAddress and dlsym give the same pointers"),
    "deepbind": ("symbols", "deepbind", "RTLD_DEEPBIND keeps the driver's own calls to itself"),
    "opening": ("opening", "opening", "cost of opening the driver, and of a process with the shims"),
    "vmm": ("memory", "vmm", "cost of VMM calls by extent size"),
    "vmm_again": ("memory", "vmm_again", "creating memory right after much was released"),
    "link": ("memory", "link", "bandwidth of pinned copies"),
    "reserve_hint": ("memory", "reserve_hint", "cuMemAddressReserve honours its hint"),
    "host_register": ("memory", "host_register", "cost of pinning tmpfs"),
    "legacy_ipc": ("memory", "legacy_ipc", "cuIpcGetMemHandle on VMM memory"),
    "driver_residue": ("residue", "driver_residue", "device memory of a context"),
    "torch_residue": ("residue", "torch_residue", "device memory of torch, cuBLAS, cuDNN"),
}
NEED_TORCH = frozenset({"torch_residue"})


def main() -> int:
    """Exit code 0 with {"answer": ...}, 1 with {"error": ...}."""
    module, function, _ = PROBES[sys.argv[1]]
    try:
        answer = getattr(importlib.import_module(f"real_gpu.{module}"), function)()
    except Exception as error:  # a probe may fail in any way; the others must go on
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps({"answer": answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
