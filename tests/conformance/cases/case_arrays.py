# SPDX-License-Identifier: Apache-2.0
"""CUDA arrays and mipmaps: creation, description, copies with all kinds of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
Format = cu.CUarray_format
Kind = cu.CUmemorytype
FLOAT = Format.CU_AD_FORMAT_FLOAT
BYTE = Format.CU_AD_FORMAT_UNSIGNED_INT8


def flat(width: int, height: int = 0, format: Any = FLOAT, channels: int = 1) -> Any:
    descriptor = cu.CUDA_ARRAY_DESCRIPTOR()
    descriptor.Width, descriptor.Height = width, height
    descriptor.Format, descriptor.NumChannels = format, channels
    return descriptor


def solid(width: int, height: int, depth: int, format: Any = FLOAT, channels: int = 1, flags: int = 0) -> Any:
    descriptor = cu.CUDA_ARRAY3D_DESCRIPTOR()
    descriptor.Width, descriptor.Height, descriptor.Depth = width, height, depth
    descriptor.Format, descriptor.NumChannels, descriptor.Flags = format, channels, flags
    return descriptor


def plane(width: int, height: int, **sides: Any) -> Any:
    copy = cu.CUDA_MEMCPY2D()
    copy.WidthInBytes, copy.Height = width, height
    for name, value in sides.items():
        setattr(copy, name, value)
    return copy


def block(width: int, height: int, depth: int, **sides: Any) -> Any:
    copy = cu.CUDA_MEMCPY3D()
    copy.WidthInBytes, copy.Height, copy.Depth = width, height, depth
    for name, value in sides.items():
        setattr(copy, name, value)
    return copy


def from_host(data: Any, pitch: int = 0) -> dict[str, Any]:
    return {"srcMemoryType": Kind.CU_MEMORYTYPE_HOST, "srcHost": data.ctypes.data, "srcPitch": pitch}


def to_host(data: Any, pitch: int = 0) -> dict[str, Any]:
    return {"dstMemoryType": Kind.CU_MEMORYTYPE_HOST, "dstHost": data.ctypes.data, "dstPitch": pitch}


def from_array(array: Any, x: int = 0, y: int = 0) -> dict[str, Any]:
    return {"srcMemoryType": Kind.CU_MEMORYTYPE_ARRAY, "srcArray": array, "srcXInBytes": x, "srcY": y}


def to_array(array: Any, x: int = 0, y: int = 0) -> dict[str, Any]:
    return {"dstMemoryType": Kind.CU_MEMORYTYPE_ARRAY, "dstArray": array, "dstXInBytes": x, "dstY": y}


@pytest.mark.parametrize(("height", "format", "channels"), [(0, FLOAT, 1), (33, FLOAT, 4), (7, BYTE, 2)])
def test_description(height: int, format: Any, channels: int, context: Any, driver_call: Call) -> None:
    array = driver_call(cu.cuArrayCreate, flat(100, height, format, channels))
    told = driver_call(cu.cuArrayGetDescriptor, array)
    assert (told.Width, told.Height, told.NumChannels) == (100, height, channels)
    assert told.Format == format
    full = driver_call(cu.cuArray3DGetDescriptor, array)
    assert (full.Width, full.Height, full.Depth) == (100, height, 0)
    driver_call(cu.cuArrayDestroy, array)


@pytest.mark.parametrize(
    "wrong",
    [
        flat(0, 4),
        flat(16, 16, FLOAT, 3),
        flat(1 << 30, 4),
        solid(4, 0, 4),
        solid(4, 5, 6, flags=cu.CUDA_ARRAY3D_CUBEMAP),
        solid(4, 4, 5, flags=cu.CUDA_ARRAY3D_CUBEMAP),
        solid(4, 4, 0, flags=cu.CUDA_ARRAY3D_LAYERED),
        solid(4, 0, 0, flags=cu.CUDA_ARRAY3D_TEXTURE_GATHER),
    ],
)
def test_wrong_descriptions(wrong: Any, context: Any, driver_result: Call) -> None:
    create = cu.cuArrayCreate if isinstance(wrong, cu.CUDA_ARRAY_DESCRIPTOR) else cu.cuArray3DCreate
    assert driver_result(create, wrong) == "INVALID_VALUE"


@pytest.mark.parametrize(
    "shape",
    [
        solid(64, 0, 5, flags=cu.CUDA_ARRAY3D_LAYERED),
        solid(64, 32, 5, flags=cu.CUDA_ARRAY3D_LAYERED),
        solid(32, 32, 6, flags=cu.CUDA_ARRAY3D_CUBEMAP),
        solid(16, 16, 12, flags=cu.CUDA_ARRAY3D_CUBEMAP | cu.CUDA_ARRAY3D_LAYERED),
        solid(64, 32, 8, flags=cu.CUDA_ARRAY3D_SURFACE_LDST),
        solid(64, 32, 0, flags=cu.CUDA_ARRAY3D_TEXTURE_GATHER),
    ],
)
def test_shapes(shape: Any, context: Any, driver_call: Call) -> None:
    array = driver_call(cu.cuArray3DCreate, shape)
    told = driver_call(cu.cuArray3DGetDescriptor, array)
    assert (told.Width, told.Height, told.Depth, told.Flags) == (shape.Width, shape.Height, shape.Depth, shape.Flags)
    driver_call(cu.cuArrayDestroy, array)


def test_memory_of_an_array_is_counted_and_comes_back(context: Any, driver_call: Call) -> None:
    before, _ = driver_call(cu.cuMemGetInfo)
    array = driver_call(cu.cuArrayCreate, flat(4096, 1024))
    during, _ = driver_call(cu.cuMemGetInfo)
    assert before - during >= 4096 * 1024 * 4 - (4 << 20)
    driver_call(cu.cuArrayDestroy, array)
    after, _ = driver_call(cu.cuMemGetInfo)
    assert after > during


def test_line(context: Any, driver_call: Call, driver_result: Call) -> None:
    source: Any = np.arange(1000, dtype=np.float32)
    back: Any = np.zeros_like(source)
    one = driver_call(cu.cuArrayCreate, flat(1000))
    two = driver_call(cu.cuArrayCreate, flat(1200))
    pointer = driver_call(cu.cuMemAlloc, source.nbytes)
    driver_call(cu.cuMemcpyHtoA, one, 0, source.ctypes.data, source.nbytes)
    driver_call(cu.cuMemcpyAtoA, two, 800, one, 0, source.nbytes)
    driver_call(cu.cuMemcpyAtoD, pointer, two, 800, source.nbytes)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, pointer, source.nbytes)
    assert np.array_equal(source, back)
    driver_call(cu.cuMemsetD32, pointer, 0, 1000)
    driver_call(cu.cuMemcpyDtoA, one, 400, pointer, 400)
    driver_call(cu.cuMemcpyAtoH, back.ctypes.data, one, 0, back.nbytes)
    assert np.array_equal(back[:100], source[:100])
    assert not back[100:200].any()
    assert np.array_equal(back[200:], source[200:])
    assert driver_result(cu.cuMemcpyAtoH, back.ctypes.data, one, 4, back.nbytes) == "INVALID_VALUE"


def test_line_in_a_stream(context: Any, driver_call: Call) -> None:
    size = 40_000
    stream = driver_call(cu.cuStreamCreate, 0)
    pinned = int(driver_call(cu.cuMemHostAlloc, 2 * size, 0))
    import ctypes

    ctypes.memset(pinned, 0x5A, size)
    ctypes.memset(pinned + size, 0, size)
    array = driver_call(cu.cuArrayCreate, flat(size, 0, BYTE))
    driver_call(cu.cuMemcpyHtoAAsync, array, 0, pinned, size, stream)
    driver_call(cu.cuMemcpyAtoHAsync, pinned + size, array, 0, size, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert ctypes.string_at(pinned + size, size) == b"\x5a" * size
    driver_call(cu.cuMemFreeHost, pinned)


def test_plane(context: Any, driver_call: Call, driver_result: Call) -> None:
    source: Any = np.arange(60 * 50, dtype=np.uint32).reshape(60, 50)
    back: Any = np.zeros((60, 50), dtype=np.uint32)
    array = driver_call(cu.cuArrayCreate, flat(50, 60, Format.CU_AD_FORMAT_UNSIGNED_INT32))
    driver_call(cu.cuMemcpy2D, plane(200, 60, **from_host(source), **to_array(array)))
    driver_call(cu.cuMemcpy2D, plane(40, 20, **from_array(array, 80, 30), **to_host(back, 200)))
    assert np.array_equal(back[:20, :10], source[30:50, 20:30])
    assert not back[20:].any()
    assert not back[:, 10:].any()
    pointer, pitch = driver_call(cu.cuMemAllocPitch, 200, 60, 4)
    device = {"dstMemoryType": Kind.CU_MEMORYTYPE_DEVICE, "dstDevice": pointer, "dstPitch": pitch}
    driver_call(cu.cuMemcpy2DUnaligned, plane(200, 60, **from_array(array), **device))
    device = {"srcMemoryType": Kind.CU_MEMORYTYPE_DEVICE, "srcDevice": pointer, "srcPitch": pitch}
    driver_call(cu.cuMemcpy2D, plane(200, 60, **device, **to_host(back)))
    assert np.array_equal(back, source)
    beyond = plane(200, 60, **from_host(source), **to_array(array, 4, 0))
    assert driver_result(cu.cuMemcpy2D, beyond) == "INVALID_VALUE"
    below = plane(200, 60, **from_host(source), **to_array(array, 0, 1))
    assert driver_result(cu.cuMemcpy2D, below) == "INVALID_VALUE"


def test_pitch_smaller_than_a_row(context: Any, driver_call: Call, driver_result: Call) -> None:
    source: Any = np.zeros((60, 50), dtype=np.uint32)
    array = driver_call(cu.cuArrayCreate, flat(50, 60))
    assert driver_result(cu.cuMemcpy2D, plane(200, 60, **from_host(source, 100), **to_array(array))) == "INVALID_VALUE"


def test_block(context: Any, driver_call: Call, driver_result: Call) -> None:
    source: Any = np.arange(7 * 9 * 11, dtype=np.float32).reshape(7, 9, 11)
    back: Any = np.zeros_like(source)
    one = driver_call(cu.cuArray3DCreate, solid(11, 9, 7))
    two = driver_call(cu.cuArray3DCreate, solid(11, 9, 7))
    driver_call(cu.cuMemcpy3D, block(44, 9, 7, **from_host(source), **to_array(one)))
    driver_call(cu.cuMemcpy3D, block(44, 9, 7, **from_array(one), **to_array(two)))
    driver_call(cu.cuMemcpy3D, block(44, 9, 7, **from_array(two), **to_host(back)))
    assert np.array_equal(back, source)
    part = block(12, 4, 2, **from_array(two, 8, 3), **to_host(back, 44), srcZ=5, dstHeight=9)
    back[:] = 0
    driver_call(cu.cuMemcpy3D, part)
    assert np.array_equal(back[:2, :4, :3], source[5:7, 3:7, 2:5])
    deeper = block(44, 9, 7, **from_array(two), **to_host(back), srcZ=1)
    assert driver_result(cu.cuMemcpy3D, deeper) == "INVALID_VALUE"


def test_elements_of_different_size_are_not_copied(context: Any, driver_call: Call, driver_result: Call) -> None:
    one = driver_call(cu.cuArrayCreate, flat(64, 0, BYTE))
    two = driver_call(cu.cuArrayCreate, flat(64))
    assert driver_result(cu.cuMemcpyAtoA, two, 0, one, 0, 64) == "INVALID_VALUE"


def test_peers_of_the_same_context(context: Any, driver_call: Call) -> None:
    source: Any = np.arange(64, dtype=np.float32)
    back: Any = np.zeros_like(source)
    array = driver_call(cu.cuArrayCreate, flat(64))
    pointer = driver_call(cu.cuMemAlloc, 256)
    driver_call(cu.cuMemcpyHtoA, array, 0, source.ctypes.data, 256)
    copy = cu.CUDA_MEMCPY3D_PEER()
    copy.WidthInBytes, copy.Height, copy.Depth = 256, 1, 1
    copy.srcMemoryType, copy.srcArray = Kind.CU_MEMORYTYPE_ARRAY, array
    copy.dstMemoryType, copy.dstDevice, copy.dstContext = Kind.CU_MEMORYTYPE_DEVICE, pointer, context
    driver_call(cu.cuMemcpy3DPeer, copy)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, pointer, 256)
    assert np.array_equal(back, source)


def test_mipmap(context: Any, driver_call: Call, driver_result: Call) -> None:
    mipmap = driver_call(cu.cuMipmappedArrayCreate, solid(64, 32, 0), 20)  # clamped to 7
    widths = []
    for level in range(7):
        array = driver_call(cu.cuMipmappedArrayGetLevel, mipmap, level)
        told = driver_call(cu.cuArrayGetDescriptor, array)
        widths.append((told.Width, told.Height))
    assert widths == [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2), (2, 1), (1, 1)]
    assert driver_result(cu.cuMipmappedArrayGetLevel, mipmap, 7) == "INVALID_VALUE"
    top, next_level = (driver_call(cu.cuMipmappedArrayGetLevel, mipmap, level) for level in (0, 1))
    source: Any = np.arange(64 * 32, dtype=np.float32).reshape(32, 64)
    back: Any = np.zeros_like(source)
    driver_call(cu.cuMemcpy2D, plane(256, 32, **from_host(source), **to_array(top)))
    driver_call(cu.cuMemcpy2D, plane(128, 16, **from_host(back), **to_array(next_level)))
    driver_call(cu.cuMemcpy2D, plane(256, 32, **from_array(top), **to_host(back)))
    assert np.array_equal(back, source)
    driver_call(cu.cuMipmappedArrayDestroy, mipmap)


def test_planes(context: Any, driver_call: Call, driver_result: Call) -> None:
    array = driver_call(cu.cuArrayCreate, flat(64, 32, FLOAT))
    assert driver_result(cu.cuArrayGetPlane, array, 0) == "INVALID_VALUE"
    video = driver_call(cu.cuArrayCreate, flat(64, 32, Format.CU_AD_FORMAT_NV12, 3))
    told = [driver_call(cu.cuArrayGetDescriptor, driver_call(cu.cuArrayGetPlane, video, p)) for p in (0, 1)]
    assert [(t.Width, t.Height, t.NumChannels) for t in told] == [(64, 32, 1), (32, 16, 2)]
    assert driver_result(cu.cuArrayGetPlane, video, 2) == "INVALID_VALUE"
    driver_call(cu.cuArrayDestroy, video)


def test_only_deferred_and_sparse_arrays_have_requirements(
    context: Any, driver_call: Call, driver_result: Call
) -> None:
    array = driver_call(cu.cuArrayCreate, flat(64, 32))
    assert driver_result(cu.cuArrayGetMemoryRequirements, array, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuArrayGetSparseProperties, array) == "INVALID_VALUE"
