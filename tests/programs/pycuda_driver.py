# SPDX-License-Identifier: Apache-2.0
"""PyCUDA's driver API: contexts, copies, streams, events, a prepared call, arrays, errors. Prints "result: OK".

PyCUDA is an optional extra (CONTRIBUTING.md says how to build it); nothing else of gpuvirt's tests needs it.
"""

from __future__ import annotations

import numpy as np
import pycuda.driver as drv
from pycuda import gpuarray

PTX = """
.version 7.0
.target sm_52
.address_size 64
.visible .const .align 4 .u32 offset[1];
.visible .entry add(.param .u64 words, .param .u32 value, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %a<4>;
    ld.param.u64 %a0, [words];
    ld.param.u32 %r0, [value];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    ld.const.u32 %r6, [offset];
    add.u32 %r0, %r0, %r6;
    mul.wide.u32 %a1, %r5, 4;
    add.s64 %a1, %a0, %a1;
    ld.global.u32 %r6, [%a1];
    add.u32 %r6, %r6, %r0;
    st.global.u32 [%a1], %r6;
DONE:
    ret;
}
"""
COUNT = 10_000


def set_offset(module: drv.Module, value: int) -> None:
    address, size = module.get_global("offset")
    assert size == 4
    drv.memcpy_htod(address, np.array([value], dtype=np.uint32))


def plain(function: drv.Function) -> None:
    """PyCUDA's ways to give an argument: In, Out, InOut, a device allocation."""
    words = np.arange(COUNT, dtype=np.uint32)
    expected = words + 7 + 1
    function(drv.InOut(words), np.uint32(7), np.uint32(COUNT), block=(128, 1, 1), grid=((COUNT + 127) // 128, 1))
    assert (words == expected).all()
    device = drv.to_device(words)
    function(device, np.uint32(1), np.uint32(COUNT), block=(256, 1, 1), grid=((COUNT + 255) // 256, 1))
    assert (drv.from_device(device, words.shape, words.dtype) == expected + 2).all()
    device.free()


def streams(function: drv.Function) -> None:
    stream = drv.Stream()
    start, end = drv.Event(), drv.Event()
    words = drv.pagelocked_zeros(COUNT, np.uint32)
    device = drv.mem_alloc(words.nbytes)
    function.prepare("PII")
    start.record(stream)
    drv.memcpy_htod_async(device, words, stream)
    for value in range(10):
        function.prepared_async_call(((COUNT + 127) // 128, 1), (128, 1, 1), stream, device, value, COUNT)
    drv.memcpy_dtoh_async(words, device, stream)
    end.record(stream)
    end.synchronize()
    assert stream.is_done()
    assert (words == sum(range(10)) + 10).all()
    assert start.time_till(end) >= 0
    drv.memset_d32_async(device, 3, COUNT, stream)
    stream.synchronize()
    drv.memcpy_dtoh(words, device)
    assert (words == 3).all()


def planes() -> None:
    source = np.arange(60 * 40, dtype=np.uint8).reshape(40, 60)
    device, pitch = drv.mem_alloc_pitch(60, 40, 4)
    copy = drv.Memcpy2D()
    copy.set_src_host(source)
    copy.set_dst_device(device)
    copy.src_pitch, copy.dst_pitch = source.strides[0], pitch
    copy.width_in_bytes, copy.height = 60, 40
    copy(aligned=True)
    back = np.zeros_like(source)
    copy = drv.Memcpy2D()
    copy.set_src_device(device)
    copy.set_dst_host(back)
    copy.src_pitch, copy.dst_pitch = pitch, back.strides[0]
    copy.width_in_bytes, copy.height = 60, 40
    copy(aligned=True)
    assert (source == back).all()


def questions(device: drv.Device, function: drv.Function) -> None:
    free, total = drv.mem_get_info()
    assert 0 < free <= total <= device.total_memory()
    assert device.get_attribute(drv.device_attribute.WARP_SIZE) == 32
    assert device.get_attributes()
    assert drv.Device(device.pci_bus_id()) == device
    assert function.get_attribute(drv.function_attribute.MAX_THREADS_PER_BLOCK) >= 128
    assert function.num_regs >= 0
    assert drv.Context.get_device() == device
    drv.Context.synchronize()


def errors() -> None:
    for wrong, kind in ((lambda: drv.module_from_buffer(b"this is no image\0"), drv.Error),
                        (lambda: drv.mem_alloc(1 << 50), drv.MemoryError)):  # fmt: skip
        try:
            wrong()
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


def arrays() -> None:
    """GPUArray where it needs no nvcc."""
    source = np.arange(1000, dtype=np.float32)
    array = gpuarray.to_gpu(source)
    assert (array.get() == source).all()
    assert (array[100:200].get() == source[100:200]).all()


def main() -> None:
    drv.init()
    device = drv.Device(0)
    context = device.make_context()
    try:
        module = drv.module_from_buffer(PTX.encode())
        set_offset(module, 1)
        function = module.get_function("add")
        plain(function)
        streams(function)
        planes()
        questions(device, function)
        errors()
        arrays()
    finally:
        context.pop()
        context.detach()
    print("result: OK")


if __name__ == "__main__":
    main()
