# SPDX-License-Identifier: Apache-2.0
"""What the cases share: the target that runs, a current context, results checked by name, kernels from CUDA C.

Cases are written against the documented behaviour, and run against every target alike. One that cannot pass says so:

    @pytest.mark.differs("shim", reason="cuIpcGetMemHandle of governed memory is refused")

"soft": the soft GPU differs from the documentation (with and without the shim before it), "shim": the shim does,
"real": the real driver does. The case must then fail there; when it passes, that is reported as a failure, so that no
difference is listed that is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.corpus import Corpus
from support.driver_calls import call, compile_ptx, recorder, result
from support.gate import Gate
from support.peer import Peer

SOURCE = rb"""
extern "C" __global__ void add(float *y, const float *x, float a, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
extern "C" __global__ void store(unsigned *to, unsigned value) { *to = value; }
extern "C" __global__ void load(const unsigned *from, unsigned *to) { *to = *from; }
extern "C" __global__ void wait_for(const volatile unsigned *flag) { while (*flag == 0) { } }
extern "C" __global__ void sum(const int *x, int *out)
{
    extern __shared__ int part[];
    part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) atomicAdd(out, part[0]);
}
__device__ int counter = 5;
__constant__ int table[4] = {1, 2, 3, 4};
extern "C" __global__ void count() { atomicAdd(&counter, table[threadIdx.x & 3]); }
extern "C" __global__ void trap() { asm("trap;"); }
"""
TRAITS = {"soft": {"soft"}, "shim-over-soft": {"soft", "shim"}, "real": {"real"}}


@dataclass(frozen=True)
class Target:
    """The driver that the cases meet."""

    name: str

    @property
    def soft(self) -> bool:
        """The soft GPU, be the shim before it or not."""
        return "soft" in TRAITS[self.name]

    @property
    def shim(self) -> bool:
        """Calls come to the shim first."""
        return "shim" in TRAITS[self.name]


outcomes: dict[str, tuple[str, str]] = {}  # of this run, by case: (kind, reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--target", choices=sorted(TRAITS), default="soft", help="the driver that this process is given")
    parser.addoption("--report", type=Path, help="JSON file for the outcome of each case")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(trait, reason): an expected difference of soft, shim or real")
    recorder.watch_bindings()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("differs"):
            (trait,), reason = mark.args, mark.kwargs["reason"]
            if trait not in ("soft", "shim", "real"):
                raise pytest.UsageError(f"{item.name}: differs({trait!r}): say soft, shim or real")
            if trait in TRAITS[config.getoption("--target")]:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A case fails by its set-up or tear-down too; the worst of the three counts."""
    name = report.nodeid.rpartition("/")[2]
    if report.failed:
        outcomes[name] = ("failed", report.longreprtext[-2000:])
    elif report.skipped and hasattr(report, "wasxfail"):
        outcomes[name] = ("differs", report.wasxfail.removeprefix("reason: "))
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        outcomes[name] = ("skipped", str(reason).removeprefix("Skipped: "))
    elif report.when == "call":
        outcomes[name] = ("passed", "")


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--report")
    if file is not None:
        file.write_text(json.dumps([(kind, name, reason) for name, (kind, reason) in outcomes.items()]))


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    return Target(pytestconfig.getoption("--target"))


@pytest.fixture(scope="session")
def ptx() -> bytes:
    return compile_ptx(SOURCE)


@pytest.fixture
def context() -> Iterator[Any]:
    """The primary context of device 0, as new: reset before and after."""
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    primary = call(cu.cuDevicePrimaryCtxRetain, device)
    call(cu.cuCtxSetCurrent, primary)
    yield primary
    cu.cuCtxSetCurrent(primary)
    call(cu.cuDevicePrimaryCtxReset, device)
    call(cu.cuDevicePrimaryCtxRelease, device)


@pytest.fixture
def kernel(context: Any, ptx: bytes) -> Callable[[str], Any]:
    module = call(cu.cuModuleLoadData, ptx)
    return lambda name: call(cu.cuModuleGetFunction, module, name.encode())


@pytest.fixture
def gate(context: Any, kernel: Callable[[str], Any]) -> Iterator[Gate]:
    """Kernels that wait and store (support/gate.py)."""
    made = Gate(kernel)
    yield made
    made.open()
    cu.cuCtxSynchronize()  # the context may have failed on purpose


@pytest.fixture
def driver_call() -> Callable[..., Any]:
    return call


@pytest.fixture
def driver_result() -> Callable[..., str]:
    return result


@pytest.fixture
def two_devices() -> tuple[Any, Any]:
    """Two devices, or the case is skipped."""
    call(cu.cuInit, 0)
    count = int(call(cu.cuDeviceGetCount))
    if count < 2:
        pytest.skip("needs two devices")
    return call(cu.cuDeviceGet, 0), call(cu.cuDeviceGet, 1)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """peer(function, *arguments): runs a function of the file of cases in a second process (support/peer.py)."""
    started: list[Peer] = []

    def start(function: Callable[..., None], *arguments: Any, pass_fds: tuple[int, ...] = ()) -> Peer:
        started.append(Peer(function, arguments, pass_fds))
        return started[-1]

    yield start
    for other in started:
        other.close()


@pytest.fixture(scope="module", params=[75, 80, 90, 100, 120])
def corpus(request: pytest.FixtureRequest) -> Iterator[Corpus]:
    """The files CORPUS of the corpus, for each architecture; on a GPU only those that it can run."""
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    attributes = cu.CUdevice_attribute
    major = call(cu.cuDeviceGetAttribute, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    minor = call(cu.cuDeviceGetAttribute, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    if request.param > 10 * major + minor and request.config.getoption("--target") == "real":
        pytest.skip(f"this GPU has compute capability {major}.{minor}")
    context = call(cu.cuDevicePrimaryCtxRetain, device)
    call(cu.cuCtxSetCurrent, context)
    yield Corpus(request.param, request.module.CORPUS)
    call(cu.cuDevicePrimaryCtxReset, device)
    call(cu.cuDevicePrimaryCtxRelease, device)
