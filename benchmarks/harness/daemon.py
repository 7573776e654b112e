# SPDX-License-Identifier: Apache-2.0
"""A private gpuvirtd for one run of a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuvirt import paths
from gpuvirt.admin import AdminClient
from gpuvirt.cli.timeline import Part
from gpuvirt.cli.trace import fetch
from gpuvirt.errors import DaemonUnavailable, GpuvirtError
from harness.processes import Child, Children
from harness.softgpu import Device

START_LIMIT = 20.0  # seconds
LOG_LINES = 100_000  # kept of what it says, for those that asked it for its debug log


def command(name: str) -> str:
    """An installed command of this environment: gpuvirt, gpuvirtd. Raises DaemonUnavailable."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise DaemonUnavailable(f"{path} is missing", "install gpuvirt into this environment: pip install -e '.[dev]'")
    return str(path)


def toml(settings: Mapping[str, Any]) -> str:
    """A configuration file with these settings; nested mappings are sections."""
    plain = [f"{key} = {value(v)}" for key, v in settings.items() if not isinstance(v, Mapping)]
    sections = [f"\n[{key}]\n{toml(v)}" for key, v in settings.items() if isinstance(v, Mapping)]
    return "\n".join([*plain, *sections])


def value(setting: object) -> str:
    """One TOML value: text, number, truth or a list of them."""
    if isinstance(setting, bool):
        return "true" if setting else "false"
    if isinstance(setting, int | float):
        return str(setting)
    if isinstance(setting, list | tuple):
        return f"[{', '.join(map(value, setting))}]"
    text = str(setting).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class Daemon:
    """gpuvirtd in a runtime folder of its own, on `device`.

    A quantum is taken as it is: swap_share 1 keeps the daemon from making it longer when a switch is dear. None: as the
    daemon does by itself. `more`: further settings, by section.
    """

    def __init__(
        self,
        runtime: Path,
        device: Device,
        quantum_ms: float | None,
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.runtime, self._device = runtime, device
        runtime.mkdir(mode=0o700)
        settings: dict[str, Any] = {section: dict(keys) for section, keys in (more or {}).items()}
        settings.setdefault("daemon", {})["runtime"] = str(runtime)
        if quantum_ms is not None:
            fixed = {"quantum": f"{quantum_ms}ms", "quantum_max": f"{max(quantum_ms, 10_000)}ms", "swap_share": 1.0}
            settings["time"] = {**fixed, **settings.get("time", {})}
        if device.drivers is not None:
            library, nvml = device.drivers / "libcuda.so.1", device.drivers / "libnvidia-ml.so.1"
            settings["driver"] = {"library": str(library), "nvml": str(nvml)}
        self._config = runtime.with_suffix(".toml")
        self._config.write_text(toml(settings) + "\n")
        self._admin = AdminClient([runtime])
        self._process: Child | None = None

    def environ(self) -> dict[str, str]:
        """For `gpuvirt` and the programs that it starts."""
        return self._device.environ({"GPUVIRT_RUNTIME": str(self.runtime)})

    def start(self, children: Children) -> Child:
        """Starts the daemon and returns when it answers. Raises DaemonUnavailable with its last words."""
        daemon = [command("gpuvirtd"), "--config", str(self._config)]
        child = children.start("gpuvirtd", daemon, self.environ(), quiet=True, keep=LOG_LINES)
        self._process = child
        ready = self.runtime / paths.ADMIN_SOCKET
        for _ in range(int(START_LIMIT / 0.05)):
            if child.exit_code is not None or (ready.exists() and self._answers()):
                break
            children.wait(child, 0.05)
        if child.exit_code is None and self._answers():
            return child
        said = child.lines[-1] if child.lines else "it said nothing"
        raise DaemonUnavailable(f"gpuvirtd did not start: {said}")

    def _answers(self) -> bool:
        try:
            self.status()
        except GpuvirtError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """All that the daemon says about jobs and devices. Raises GpuvirtError."""
        answer: dict[str, Any] = self._admin.call("status", all=True)
        return answer

    @property
    def pid(self) -> int:
        """Of the daemon that was started last."""
        assert self._process is not None
        return self._process.pid

    def log_lines(self) -> list[str]:
        """What it has said so far."""
        return list(self._process.lines) if self._process is not None else []

    def metrics(self) -> str:
        """In the text format of Prometheus. Raises GpuvirtError."""
        return str(self._admin.call("metrics").get("text", ""))

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs, ended ones too. Raises GpuvirtError."""
        rows: list[dict[str, Any]] = self.status()["jobs"]
        return rows

    def accounts(self) -> dict[str, dict[str, Any]]:
        """The jobs by name; `share` is the part of all held time that was theirs. Raises GpuvirtError."""
        rows = self.jobs()
        held = sum(float(row["held_s"]) for row in rows)
        return {row["name"]: {**row, "share": row["held_s"] / held if held else 0.0} for row in rows}

    def trace(self, last_s: float) -> list[Part]:
        """What `gpuvirt trace` writes of the last seconds, one part a GPU. Raises GpuvirtError."""
        return fetch(self._admin, None, int(last_s * 1e9))

    def run_command(self, name: str, program: Sequence[str], *options: str) -> list[str]:
        """The command line that starts `program` as a job."""
        return [command("gpuvirt"), "run", "--name", name, *options, "--", *program]
