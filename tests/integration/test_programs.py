# SPDX-License-Identifier: Apache-2.0
"""Programs that are built in ways which have broken the shim or the driver behind it."""

from __future__ import annotations

import subprocess

from support.host import Host

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
