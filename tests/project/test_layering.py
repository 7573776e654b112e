# SPDX-License-Identifier: Apache-2.0
"""Who may import or include whom. A failing test is a question about the design, not about the import line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE_FORBIDS = {
    "asyncio", "ctypes", "grpc", "logging", "multiprocessing", "os", "pathlib", "random", "select", "selectors",
    "shutil", "signal", "socket", "structlog", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
PURE = [
    "gpuvirt/arbitration", "gpuvirt/scheduler/decide", "gpuvirt/scheduler/order", "gpuvirt/scheduler/simulate",
    "gpuvirt/scheduler/traces", "gpuvirt/scheduler/placement",
]  # fmt: skip
DAEMON_MAY_USE = {
    "arbitration",
    "clock",
    "control",
    "errors",
    "fencing",
    "job",
    "metrics",
    "paths",
    "proto",
    "tokens",
    "units",
}
NVML_READERS = {"daemon/gpuvirtd/devices/nvml.py", "gpuvirt/cli/nvml_probe.py"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)


def modules(folder: str) -> list[Path]:
    """Python files under a folder of the repository; none when it is not there yet."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name)


def imports(source: str, package: str = "") -> set[str]:
    """Full names of everything imported, relative imports resolved against `package`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    relative = path.relative_to(ROOT)
    parts = relative.parts[1:] if relative.parts[0] == "daemon" else relative.parts
    return imports(path.read_text(), ".".join(parts[:-1]))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_are_seen() -> None:
    source = "import os.path\nfrom gpuvirt import errors\nfrom ..x import y\ndef f():\n    import time"
    assert imports(source, "a.b") == {"os.path", "gpuvirt", "gpuvirt.errors", "a.x", "a.x.y", "time"}


def test_client_package_never_imports_the_daemon() -> None:
    for path in modules("gpuvirt"):
        assert not {target.split(".")[0] for target in imports_of(path)} & {"gpuvirtd", "gpuvirt_scheduler"}, name(path)


def test_daemon_uses_only_what_is_meant_for_it() -> None:
    for path in modules("daemon/gpuvirtd"):
        used = {target.split(".")[1] for target in imports_of(path) if target.startswith("gpuvirt.")}
        assert used <= DAEMON_MAY_USE | {"__version__"}, name(path)


@pytest.mark.parametrize("folder", PURE)
def test_decisions_are_pure(folder: str) -> None:
    for path in modules(folder):
        touched = {target.split(".")[0] for target in imports_of(path)} & PURE_FORBIDS
        assert not touched, f"{name(path)} imports {touched}"


@pytest.mark.parametrize(
    "file",
    [
        "fencing.py",
        *(f"scheduler/{name}.py" for name in ("actions", "changes", "draws", "model", "reconcile", "state")),
    ],
)
def test_file_is_pure(file: str) -> None:
    path = ROOT / "gpuvirt" / file
    assert not {target.split(".")[0] for target in imports_of(path)} & PURE_FORBIDS


def test_arbitration_depends_on_nothing_above_it() -> None:
    for path in modules("gpuvirt/arbitration"):
        used = {target for target in imports_of(path) if target.startswith("gpuvirt.")}
        allowed = ("gpuvirt.arbitration", "gpuvirt.errors", "gpuvirt.units", "gpuvirt.clock", "gpuvirt.job")
        assert all(target.startswith(allowed) for target in used), name(path)


def test_simulation_is_pure_and_draws_by_seed() -> None:
    """The same scenario gives the same figures, and the daemon's decisions are in it unchanged."""
    for path in modules("gpuvirt/simulation"):
        used = imports_of(path)
        touched = {target.split(".")[0] for target in used} & (PURE_FORBIDS - {"random"})
        assert not touched, f"{name(path)} imports {touched}"
        assert "random" not in used or "random.Random" in used, f"{name(path)}: only Random with a seed"
        allowed = ("gpuvirt.arbitration", "gpuvirt.simulation", "gpuvirt.errors", "gpuvirt.units")
        assert all(target.startswith(allowed) for target in used if target.startswith("gpuvirt.")), name(path)


def test_translator_stands_alone() -> None:
    """The soft driver starts it as a program, from any Python."""
    for path in modules("gpuvirt/softgpu"):
        used = {target for target in imports_of(path) if target.startswith("gpuvirt.")}
        assert all(target.startswith("gpuvirt.softgpu") for target in used), name(path)


def test_only_control_touches_the_c_part() -> None:
    allowed = {"gpuvirt/cli/findings.py"}  # `gpuvirt doctor` tries whether it can be imported
    for path in modules("gpuvirt") + modules("daemon/gpuvirtd"):
        if name(path).startswith("gpuvirt/control/") or name(path) in allowed:
            continue
        used = imports_of(path)
        assert not any(target.startswith("gpuvirt.control._control_block") for target in used), name(path)
        assert "cffi" not in used, name(path)


def test_only_few_touch_nvml_and_cuda() -> None:
    for path in modules("gpuvirt") + modules("daemon/gpuvirtd"):
        roots = {target.split(".")[0] for target in imports_of(path)}
        assert "pynvml" not in roots or name(path) in NVML_READERS, name(path)
        assert not roots & {"cuda", "numba", "cupy", "torch"}, name(path)


def test_fast_path_of_the_command_line() -> None:
    """What main, ps and run import when they are imported (tested by running, too)."""
    for verb in ("main", "ps", "gpus", "run", "connection", "output"):
        tree = ast.parse((ROOT / "gpuvirt" / "cli" / f"{verb}.py").read_text())
        top = "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        roots = {target.split(".")[0] for target in imports(top)}
        assert not roots & {"asyncio", "cffi", "grpc", "msgspec", "psutil", "pynvml", "structlog", "textual"}, verb


def includes(folder: str) -> dict[str, set[str]]:
    """Included names by file."""
    files = sorted((ROOT / folder).rglob("*.[chS]"))
    return {name(path): set(INCLUDE.findall(path.read_text())) for path in files}


def test_shim_and_soft_gpu_do_not_know_each_other() -> None:
    headers = {folder: {path.name for path in (ROOT / "native" / folder).glob("*.h")} for folder in ("shim", "softgpu")}
    shared = {path.name for path in (ROOT / "native" / "include" / "gpuvirt").glob("*.h")}
    for mine, other in (("shim", "softgpu"), ("softgpu", "shim")):
        for path, names in includes(f"native/{mine}").items():
            foreign = {n for n in names if n in headers[other] - headers[mine] - shared or f"{other}/" in n}
            assert not foreign, f"{path} includes {foreign}"
    for path, names in includes("native/softgpu").items():
        assert not any(n.startswith("gpuvirt/") for n in names), (
            f"{path}: the soft GPU knows nothing of jobs and leases"
        )


def test_c_never_embeds_python() -> None:
    for path, names in includes("native").items():
        assert "Python.h" not in names, path
