# SPDX-License-Identifier: Apache-2.0
"""numba-cuda's own tests (cudapy and cudadrv) on the soft GPU, directly and under gpuvirt.

    python tests/suites/numba_suite.py [--mode soft|gpuvirt|both] [--only FILE]... [-j N]

Each file runs in a process of its own. A test that crashes it, or takes longer than the limit, is one failure; the
rest of the file is run by the next process. The last line of each mode: `numba-cuda: ran N, skipped S, failed F`.
Exit code 0: at least 99.5 % of those run passed, in both modes alike.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.host import BIN, MIB, Host  # noqa: E402

EXCLUSIONS = HERE / "numba_exclusions.tsv"
ENOUGH = 0.995
FOLDERS = ("cudadrv", "cudapy")
NEEDED = {"filecheck": "filecheck", "numba_cuda": "numba-cuda", "numba": "numba"}
MEMORY = 1024 * MIB
CRASHES = 8  # of one file, after which it is given up


@dataclasses.dataclass
class Verdict:
    """One test."""

    verdict: str
    lines: list[str]


Verdicts = dict[str, Verdict]


def suite() -> Path:
    """Folder of numba-cuda's tests."""
    spec = importlib.util.find_spec("numba_cuda")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "numba" / "cuda" / "tests"


def exclusions() -> dict[str, str]:
    """Id -> reason."""
    lines = [line for line in EXCLUSIONS.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.partition("\t") for line in lines]
    return {name: reason for name, _, reason in pairs}


def read_report(path: Path) -> tuple[Verdicts, str]:
    """Verdicts so far, and the test that is running, or ""."""
    verdicts: Verdicts = {}
    running = ""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:  # the process was killed as it wrote
            continue
        if entry["event"] == "start":
            running = entry["id"]
        elif entry["event"] == "end":
            verdicts[entry["id"]] = Verdict(entry["verdict"], entry["lines"])
            running = ""
    return verdicts, running


class Mode:
    """One pass over the files."""

    def __init__(self, name: str, host: Host, limit: float) -> None:
        self.name = name
        self.host = host
        self.limit = limit
        self.excluded = exclusions()
        self.stopped = False  # by the user

    def _once(self, file: Path, report: Path, skip: Path, output: Path) -> str:
        """Runs what is left of a file; returns why the process did not end by itself, or ""."""
        pytest = [sys.executable, "-m", "pytest", "-p", "numba_reporter", "-p", "no:cacheprovider", "-p", "no:timeout"]
        pytest += ["-p", "no:xdist", "-q", "-c", str(self.host.folder / "empty.ini"), "--rootdir", str(suite())]
        command = [*pytest, str(file)]
        if self.name == "gpuvirt":
            command = [str(BIN / "gpuvirt"), "run", "--name", file.stem, "--", *command]
        environ = self.host.environ(
            GPUVIRT_SUITE_REPORT=str(report),
            GPUVIRT_SUITE_SKIP=str(skip),
            PYTHONPATH=str(HERE),
            NUMBA_CUDA_TEST_BIN_DIR="",
            TMPDIR=str(self.host.folder / "tmp"),
        )
        with output.open("ab") as sink:
            child = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.host.folder,
                start_new_session=True,
            )
            size, changed = -1, time.monotonic()
            reason = ""
            while child.poll() is None:
                time.sleep(0.2)
                now = report.stat().st_size if report.exists() else 0
                if now != size:
                    size, changed = now, time.monotonic()
                if self.stopped:
                    reason = "interrupted"
                    break
                if time.monotonic() - changed > self.limit:
                    reason = f"took longer than {self.limit:.0f} s"
                    break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with whatever it has started
            code = child.wait()
        if not reason and code not in (0, 1, 5):
            reason = f"the process died with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        return reason

    def run_file(self, file: Path) -> Verdicts:
        """All verdicts of one file."""
        name = f"{file.parent.name}/{file.name}"
        base = self.host.folder / f"{self.name}-{file.parent.name}-{file.stem}"
        report, skip, output = (base.with_suffix(suffix) for suffix in (".jsonl", ".skip", ".out"))
        verdicts: Verdicts = {}
        for _ in range(CRASHES):
            skip.write_text("\n".join([*self.excluded, *verdicts]))
            reason = self._once(file, report, skip, output)
            found, running = read_report(report)
            verdicts.update(found)
            if not reason:
                break
            lines = [*output.read_text(errors="replace").splitlines()[-10:], reason]
            verdicts[running or f"{name}::(start)"] = Verdict("failed", lines)
            if not running or self.stopped:
                break
        else:
            verdicts[f"{name}::(rest)"] = Verdict("failed", [f"given up after {CRASHES} crashes"])
        return verdicts

    def run(self, files: list[Path], workers: int) -> Verdicts:
        """All verdicts; a line a file as it ends."""
        everything: Verdicts = {}
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            tasks = {pool.submit(self._timed, file): file for file in files}
            for number, task in enumerate(self._completed(pool, tasks), 1):
                verdicts, seconds = task.result()
                counts = collections.Counter(v.verdict for v in verdicts.values())
                text = ", ".join(f"{counts[word]} {word}" for word in ("passed", "skipped", "failed") if counts[word])
                where = f"{tasks[task].parent.name}/{tasks[task].name}"
                print(f"[{self.name} {number}/{len(files)}] {where}: {text or 'nothing'} ({seconds:.0f} s)", flush=True)
                everything.update(verdicts)
        return everything

    def _completed(
        self, pool: concurrent.futures.Executor, tasks: Iterable[concurrent.futures.Future[tuple[Verdicts, float]]]
    ) -> Iterator[concurrent.futures.Future[tuple[Verdicts, float]]]:
        """As they end. Ctrl-C ends what runs and starts nothing more."""
        try:
            yield from concurrent.futures.as_completed(tasks)
        except BaseException:
            self.stopped = True
            pool.shutdown(cancel_futures=True)
            raise

    def _timed(self, file: Path) -> tuple[Verdicts, float]:
        start = time.monotonic()
        return self.run_file(file), time.monotonic() - start


def details(mode: str, verdicts: Verdicts, left_out: dict[str, str]) -> None:
    """Prints failures, and why tests did not run."""
    by = {word: sorted(n for n, v in verdicts.items() if v.verdict == word) for word in ("passed", "skipped", "failed")}
    for name in by["failed"]:
        print(f"\nFAILED [{mode}] {name}")
        for line in verdicts[name].lines:
            print(f"    {line}")
    reasons = collections.Counter(" ".join(verdicts[name].lines)[:110] for name in by["skipped"])
    print(f"\nskipped by themselves [{mode}]:")
    for reason, count in reasons.most_common():
        print(f"    {count:4} {reason}")
    print(f"excluded, see {EXCLUSIONS.name}:")
    for reason, count in collections.Counter(left_out.values()).most_common():
        print(f"    {count:4} {reason}")


def closing(mode: str, verdicts: Verdicts) -> bool:
    """Prints the closing line of a mode; whether enough passed."""
    counts = collections.Counter(v.verdict for v in verdicts.values())
    ran = counts["passed"] + counts["failed"]
    enough = ran > 0 and counts["passed"] >= ENOUGH * ran
    share = 100 * counts["passed"] / max(ran, 1)
    print(f"\n{mode}: {share:.2f} % of those run passed{'' if enough else f', less than {100 * ENOUGH} %'}")
    print(f"numba-cuda: ran {ran}, skipped {counts['skipped']}, failed {counts['failed']}", flush=True)
    return enough


def compare(soft: Verdicts, gpuvirt: Verdicts) -> bool:
    """Prints what differs; whether nothing does."""
    different = []
    for name in sorted({*soft, *gpuvirt}):
        one, other = (v[name].verdict if name in v else "absent" for v in (soft, gpuvirt))
        if one != other:
            different.append(f"    {name}: {one} directly, {other} under gpuvirt")
    print("both modes alike" if not different else "\n".join(["the modes differ:", *different]))
    return not different


def obstacle() -> str:
    """Why the suite cannot run here, or ""."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        return f"{', '.join(missing)} is not installed; run: pip install -e '.[dev]'"
    # numba would link with it, to cubins
    probe = [sys.executable, "-c", "from cuda.bindings import nvjitlink; nvjitlink.version()"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return "nvJitLink is installed, whose cubins the soft GPU cannot run; run: pip uninstall nvidia-nvjitlink"
    return ""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mode", choices=("soft", "gpuvirt", "both"), default="both")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="file or part of its name; repeat")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="files at the same time (default 2)")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="for one test (default 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts there")
    return parser.parse_args()


def main() -> int:
    """Runs the modes; returns the exit code."""
    given = arguments()
    if reason := obstacle():
        print(f"numba-cuda: {reason}")
        return 2
    files = sorted(path for folder in FOLDERS for path in (suite() / folder).glob("test_*.py"))
    if given.only:
        files = [path for path in files if any(part in str(path) for part in given.only)]
    if not files:
        print("numba-cuda: no such test file")
        return 2
    modes = ("soft", "gpuvirt") if given.mode == "both" else (given.mode,)
    results: dict[str, Verdicts] = {}
    left_out = {n: r for n, r in exclusions().items() if any(n.startswith(f"{f.parent.name}/{f.name}") for f in files)}
    for name in modes:
        host = Host(MEMORY)
        (host.folder / "tmp").mkdir()
        (host.folder / "empty.ini").write_text("")  # not the project's own settings
        try:
            if name == "gpuvirt":
                host.start_daemon()
            results[name] = Mode(name, host, given.limit).run(files, max(1, given.jobs))
        finally:
            host.close()
    if given.json:
        given.json.write_text(
            json.dumps({m: {n: v.verdict for n, v in r.items()} for m, r in results.items()}, indent=1)
        )
    for name, verdicts in results.items():
        details(name, verdicts, left_out)
    alike = compare(results["soft"], results["gpuvirt"]) if len(modes) == 2 else True
    enough = [closing(name, verdicts) for name, verdicts in results.items()]
    return 0 if all(enough) and alike else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
