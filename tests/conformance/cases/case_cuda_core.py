# SPDX-License-Identifier: Apache-2.0
"""Programs as users of cuda.core write them: devices, streams, events, buffers, programs, launches.

What cuda.core asks of the CUDA runtime (Device.sync, Device.pci_bus_id) is left out: the soft GPU has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

core = pytest.importorskip("cuda.core")

SOURCE = """
template <typename T> __global__ void saxpy(T a, const T *x, T *y, size_t n)
{
    const size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
extern "C" __global__ void fill(int *to, int value, int n)
{
    for (int i = threadIdx.x + blockIdx.x * blockDim.x; i < n; i += gridDim.x * blockDim.x) to[i] = value + i;
}
extern "C" __global__ void reverse(int *to)
{
    extern __shared__ int part[];
    part[threadIdx.x] = to[threadIdx.x];
    __syncthreads();
    to[threadIdx.x] = part[blockDim.x - 1 - threadIdx.x];
}
"""


@pytest.fixture
def device() -> Any:
    made = core.Device(0)
    made.set_current()
    return made


@pytest.fixture(scope="module")
def code() -> Any:
    core.Device(0).set_current()
    options = core.ProgramOptions(std="c++17", arch="compute_75")
    program = core.Program(SOURCE, code_type="c++", options=options)
    names = ("saxpy<float>", "saxpy<double>")
    return program.compile("ptx", name_expressions=names)


def host_view(buffer: Any, kind: Any) -> Any:
    """Pinned memory as an array."""
    return np.from_dlpack(buffer).view(kind)


def test_device(device: Any) -> None:
    assert device.device_id == 0
    assert device.name
    assert device.uuid.startswith("GPU-") or len(device.uuid) >= 32
    assert device.compute_capability.major >= 7
    assert device.properties.warp_size == 32
    assert device.properties.max_threads_per_block == 1024
    assert device.properties.multiprocessor_count >= 1


def test_saxpy(device: Any, code: Any) -> None:
    stream = device.create_stream()
    pinned = core.LegacyPinnedMemoryResource()
    n = 10_000
    rng = np.random.default_rng(4)
    for kind, name in ((np.float32, "saxpy<float>"), (np.float64, "saxpy<double>")):
        kernel = code.get_kernel(name)
        bytes_ = n * np.dtype(kind).itemsize
        at_host = [pinned.allocate(bytes_, stream=stream) for _ in range(2)]
        x, y = (host_view(buffer, kind) for buffer in at_host)
        x[:], y[:] = rng.random(n, dtype=kind), rng.random(n, dtype=kind)
        expected = y + kind(3) * x
        at_device = [device.allocate(bytes_, stream=stream) for _ in range(2)]
        for host, there in zip(at_host, at_device, strict=True):
            host.copy_to(there, stream=stream)
        config = core.LaunchConfig(grid=(n + 255) // 256, block=256)
        core.launch(stream, config, kernel, kind(3), at_device[0], at_device[1], np.uint64(n))
        at_device[1].copy_to(at_host[1], stream=stream)
        stream.sync()
        assert np.allclose(y, expected, rtol=1e-6)
        for buffer in (*at_host, *at_device):
            buffer.close(stream)
    stream.close()


def test_events_and_order(device: Any, code: Any) -> None:
    one, two = device.create_stream(), device.create_stream()
    timed = core.EventOptions(timing_enabled=True)
    pinned = core.LegacyPinnedMemoryResource().allocate(4000, stream=one)
    words = host_view(pinned, np.int32)
    fill = code.get_kernel("fill")
    config = core.LaunchConfig(grid=4, block=64)
    start = one.record(options=timed)
    core.launch(one, config, fill, pinned, np.int32(1), np.int32(1000))
    end = one.record(options=timed)
    two.wait(end)
    core.launch(two, config, fill, pinned, np.int32(5), np.int32(1000))
    two.sync()
    assert end.is_done
    assert (words == np.arange(1000) + 5).all()
    assert end - start >= 0
    pinned.close(one)


def test_shared_memory_and_shapes(device: Any, code: Any) -> None:
    stream = device.create_stream()
    pinned = core.LegacyPinnedMemoryResource().allocate(1024, stream=stream)
    words = host_view(pinned, np.int32)
    words[:] = np.arange(256)
    config = core.LaunchConfig(grid=(1, 1, 1), block=(256, 1, 1), shmem_size=1024)
    core.launch(stream, config, code.get_kernel("reverse"), pinned)
    stream.sync()
    assert (words == np.arange(255, -1, -1)).all()
    pinned.close(stream)


def test_kernel_attributes(device: Any, code: Any) -> None:
    kernel = code.get_kernel("fill")
    assert kernel.attributes.max_threads_per_block == 1024
    assert kernel.num_arguments == 3
    assert [(info.offset, info.size) for info in kernel.arguments_info] == [(0, 8), (8, 4), (12, 4)]
    assert kernel.occupancy.max_active_blocks_per_multiprocessor(256, 0) >= 1


def test_cooperative_launch(device: Any, code: Any) -> None:
    if not device.properties.cooperative_launch:
        pytest.skip("no cooperative launch")
    stream = device.create_stream()
    buffer = device.allocate(400, stream=stream)
    config = core.LaunchConfig(grid=1, block=32, is_cooperative=True)
    core.launch(stream, config, code.get_kernel("fill"), buffer, np.int32(0), np.int32(100))
    stream.sync()
    buffer.close(stream)


def test_memory_resource(device: Any) -> None:
    stream = device.create_stream()
    resource = device.memory_resource
    assert resource.is_device_accessible
    buffer = resource.allocate(1 << 20, stream=stream)
    assert buffer.size == 1 << 20
    assert buffer.is_device_accessible and not buffer.is_host_accessible
    other = resource.allocate(1 << 20, stream=stream)
    other.copy_from(buffer, stream=stream)
    buffer.close(stream)
    other.close(stream)
    stream.sync()


def test_errors_are_exceptions(device: Any) -> None:
    stream = device.create_stream()
    with pytest.raises(Exception, match=r"OUT_OF_MEMORY|out of memory"):
        device.allocate(1 << 50, stream=stream)
    with pytest.raises(Exception, match=r"error|undefined|identifier"):
        core.Program("this is no program", code_type="c++").compile("ptx")
    stream.sync()


def test_streams(device: Any) -> None:
    stream = device.create_stream(options=core.StreamOptions(nonblocking=True, priority=-1))
    assert stream.is_nonblocking
    assert stream.priority == -1
    assert stream.device.device_id == 0
    stream.sync()
    assert device.default_stream is not None
    device.default_stream.sync()
    stream.close()
