# SPDX-License-Identifier: Apache-2.0
"""Programs that are built in ways which have broken the shim or the driver behind it."""

from __future__ import annotations

import subprocess
import sys

from support.host import PROGRAMS, Host, host

# An executable at a fixed address that reads `environ` has a copy of that variable of its own. What is opened with
# RTLD_DEEPBIND (the driver, by the shim) finds libc's instead, which nobody ever sets.
OWN_ENVIRON = r"""
#include <dlfcn.h>
#include <stdio.h>
extern char **environ;
static const char ptx[] = ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry k() { ret; }\n";
int main(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *context, *module;
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(driver, "cuInit");
    int (*retain)(void **, int) = (int (*)(void **, int))dlsym(driver, "cuDevicePrimaryCtxRetain");
    int (*current)(void *) = (int (*)(void *))dlsym(driver, "cuCtxSetCurrent");
    int (*load)(void **, const void *) = (int (*)(void **, const void *))dlsym(driver, "cuModuleLoadData");
    if (init(0) || retain(&context, 0) || current(context) || load(&module, ptx))
        return 1;
    printf("loaded, %s\n", environ[0] ? "environment kept" : "no environment");
    return 0;
}
"""


def test_an_executable_at_a_fixed_address_with_an_environ_of_its_own(machine: Host) -> None:
    source, program = machine.folder / "own.c", machine.folder / "own"
    source.write_text(OWN_ENVIRON)
    subprocess.run(["cc", "-no-pie", "-fno-pie", str(source), "-o", str(program), "-ldl"], check=True)
    job = machine.run(
        str(program), GPUVIRT_SOFTGPU_CACHE=str(machine.folder / "cache")
    )  # cold: the compiler is started
    assert job.wait(60) == 0, job.text
    assert "loaded, environment kept" in job.text


def test_a_second_gpu_in_one_process_is_refused_and_not_left_ungoverned() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "from device import *\n"
        "open_device()\n"
        "for _ in range(3): print(cu.cuDevicePrimaryCtxRetain(call(cu.cuDeviceGet, 1)))\n"
        "print(call(cu.cuDevicePrimaryCtxGetState, 1)); call(cu.cuMemAlloc, 1 << 20)\n"
    )
    with host(options={"GPUVIRT_SOFTGPU_DEVICES": "2"}) as machine:
        job = machine.run(sys.executable, "-c", code)
        assert job.wait(60) == 0, job.text
        assert job.text.count("CUDA_ERROR_NOT_SUPPORTED") == 3, job.text
        assert "(0, 0)" in job.text, job.text  # flags, active: nothing of the second GPU is kept
        assert job.text.count("CUDA_VISIBLE_DEVICES") == 1, job.text


def test_jobs_on_different_gpus_do_not_wait_for_each_other() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "import device, mixer, cuda.bindings.driver as cu\n"
        "get = cu.cuDeviceGet; cu.cuDeviceGet = lambda index: get(1)\n"
        "sys.argv = ['mixer', '--memory', '160', '--seconds', '1.5']; sys.exit(mixer.main())\n"
    )
    with host(options={"GPUVIRT_SOFTGPU_DEVICES": "2"}) as machine:
        other = machine.run(sys.executable, "-c", code, name="other")
        first = machine.job("mixer.py", "--memory", "160", "--seconds", "1.5", name="first")
        assert (first.wait(60), other.wait(60)) == (0, 0), machine.report()
        assert machine.status()["gpus"][1]["switches"] == 1
        for name in ("first", "other"):
            job = machine.job_named(name)
            assert (job["switches"], job["out_bytes"]) == (1, 0), job
