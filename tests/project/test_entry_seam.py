# SPDX-License-Identifier: Apache-2.0
"""Every exported function of the soft driver passes the entry seam (native/softgpu/call.h), and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

SOFTGPU = Path(__file__).resolve().parents[2] / "native" / "softgpu"
# They need no driver, or bring the seam with them.
WITHOUT = {
    "cuInit": "passes it when there is a board",
    "cuGetErrorName": "a table",
    "cuGetErrorString": "a table",
}
FUNCTION = re.compile(
    r"^(?P<exported>GV_EXPORT )?(?:static |inline )*[\w \*]*?\b(?P<name>\w+)\((?:(?!\n\n|GV_EXPORT)[^;{}])*?\)\s"
    r"\{(?P<body>.*?)(?:^\}| \}$)",
    re.MULTILINE | re.DOTALL,
)
PASSED_ON = re.compile(r"return (?:cu|gv_checkpoint_)\w+\([^;]*\);", re.DOTALL)


def functions() -> list[tuple[str, str, bool, str]]:
    """File, name, whether exported, body."""
    found = []
    for path in sorted(SOFTGPU.glob("*.c")):
        if not path.name.startswith("nvml"):
            for match in FUNCTION.finditer(path.read_text()):
                found.append((path.name, match["name"], match["exported"] is not None, match["body"].strip()))
    return found


def test_exported_functions_pass_the_seam() -> None:
    missing = [
        f"{file}: {name}"
        for file, name, exported, body in functions()
        if exported and name.startswith("cu") and name not in WITHOUT
        if not PASSED_ON.fullmatch(body) and "GV_ENTER" not in body
    ]
    assert not missing, "begin with GV_ENTER() or GV_ENTER_CONTEXT(): " + ", ".join(missing)


def test_helpers_do_not() -> None:
    """The seam knows a call by the name of the function around it."""
    wrong = [
        f"{file}: {name}"
        for file, name, exported, body in functions()
        if not exported and re.search(r"GV_ENTER(_CONTEXT|_ANY)?\(", body)
    ]
    assert not wrong, "use GV_READY() or GV_NEED_CONTEXT(): " + ", ".join(wrong)


def test_there_is_something_to_test() -> None:
    assert sum(exported for _, _, exported, _ in functions()) > 200


def test_nvml_functions_pass_theirs() -> None:
    missing = []
    for path in sorted(SOFTGPU.glob("nvml*.c")):
        for match in FUNCTION.finditer(path.read_text()):
            body = match["body"].strip()
            exported = match["exported"] is not None and match["name"] not in ("nvmlErrorString", "function")
            if exported and "GV_NVML_ENTER();" not in body and not re.fullmatch(r"return nvml\w+\([^;]*\);", body):
                missing.append(f"{path.name}: {match['name']}")
    assert not missing, "begin with GV_NVML_ENTER(): " + ", ".join(missing)
