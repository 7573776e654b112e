# SPDX-License-Identifier: Apache-2.0
"""The framework steps of real_gpu.sh: what can run here, what is a failure, and one of each kind on a soft GPU."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_gpu.frameworks import CASES, QUOTAS, Case, Frameworks, judged
from real_gpu.steps import StepFailed

from harness.interrupts import Interrupts
from harness.processes import Children
from harness.softgpu import Scratch, soft_gpu

PROGRAMS = Path(__file__).resolve().parents[3] / "benchmarks" / "programs"


def test_why_a_case_cannot_run() -> None:
    assert "no real GPU" in CASES["torch_compile"].missing(False)
    absent = Case("x.py", (), ("no_such_module.inside", "json"))
    assert absent.missing(True) == "no_such_module.inside is not installed"
    assert Case("x.py", (), ("json",)).missing(True) == ""


def test_every_case_has_its_program() -> None:
    for case in (*CASES.values(), *QUOTAS.values()):
        text = (PROGRAMS / case.program).read_text()
        assert case.words[0].startswith("--") or f'"{case.words[0]}"' in text, case


def test_all_of_must_hold_seven_is_there() -> None:
    wanted = {"torch_compile", "torch_cuda_graphs", "torch_expandable_segments", "torch_eager", "torch_sharing", "cupy",
              "jax", "triton", "nccl_one_rank"}  # fmt: skip
    assert wanted <= set(CASES)


def test_what_doctor_found() -> None:
    findings = [
        {"name": "python", "state": "ok", "message": "3.11", "facts": {}},
        {"name": "doors", "state": "fail", "message": "NVML: leads to nothing", "facts": {}},
        {"name": "attached", "state": "ok", "message": "1 process", "facts": {"submitted": 32}},
        {"name": "passed", "state": "ok", "message": "3 calls", "facts": {"passed_calls": 3, "unknown_names": 0}},
    ]
    answer = judged(findings, {"given_to_the_gpu": 32})
    assert answer["counts"] == {"submitted": 32, "program_counts": 32, "passed_calls": 3, "unknown_names": 0}
    assert set(answer["doctor"]) == {"doors", "attached", "passed"}


@pytest.fixture
def frameworks() -> Iterator[Frameworks]:
    interrupts = Interrupts()
    with Scratch("gpuvirt-frameworks-") as scratch:
        yield Frameworks(soft_gpu(scratch, 256 << 20), scratch, functools.partial(Children, interrupts))


def test_a_quota_is_obeyed(frameworks: Frameworks) -> None:
    answer = frameworks.quota(QUOTAS["quota_plain"], 60)
    assert answer["quota_bytes"] == answer["allocated_bytes"] == answer["total_bytes"] == 64 << 20


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_results_and_counts_with_and_without(frameworks: Frameworks) -> None:
    answer = frameworks.compare(CASES["numba"], 120)
    assert answer["equal"] and answer["counts"]["submitted"] == answer["counts"]["program_counts"] == 32
    # A helper that is seen between its start and its exec may be warned of; what escapes is a failure.
    escapes = answer["doctor"]["escapes"]
    assert escapes and all(state != "fail" for state, _ in escapes), escapes


def test_results_that_differ_are_a_failure(frameworks: Frameworks, tmp_path: Path) -> None:
    """A program that finds out where it runs."""
    program = tmp_path / "differs.py"
    program.write_text(
        "import json, os, sys\n"
        "with open(sys.argv[sys.argv.index('--json') + 1], 'w') as file:\n"
        "    json.dump({'result': os.environ.get('GPUVIRT_JOB', 'alone')}, file)\n"
    )
    with pytest.raises(StepFailed, match="results differ") as caught:
        frameworks.compare(Case(str(program), (), ()), 60)
    assert json.loads(str(caught.value).split(": ", 1)[1][:2000] or "{}")["bare"] == {"result": "alone"}
