/* SPDX-License-Identifier: Apache-2.0
 *
 * cuInit, version, fork, and the answer of everything that is not implemented.
 */
#include "driver.h"
#include "driver_faults.h"
#include "fault.h"
#include "header_version.h"
#include "model.h"
#include "service.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gv_driver gv_driver;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool forked;

int gv_soft_missing(const char *symbol);

/* Once per symbol: the names are string literals of the generated file, so their addresses identify them. */
int gv_soft_missing(const char *symbol)
{
    GV_ENTER_NAMED(symbol);
    static const char *_Atomic told[1024];
    if (gv_log_wanted()) {
        const size_t slot = ((uintptr_t)symbol >> 3) % 1024;
        if (atomic_exchange(&told[slot], symbol) != symbol)
            gv_log_detail("%s is not implemented: CUDA_ERROR_NOT_SUPPORTED", symbol);
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* A real driver is unusable in a forked child: so are we. Its memory was marked MADV_DONTFORK. */
static void in_child(void)
{
    if (atomic_load(&gv_driver.ready)) {
        atomic_store(&gv_driver.ready, false);
        atomic_store(&forked, true);
    }
    gv_calls_start(NULL);
    gv_board_forget();
}

static int count_workers(void)
{
    const char *wanted = getenv("GPUVIRT_SOFTGPU_WORKERS");
    int count = wanted != NULL ? atoi(wanted) : 0;
    if (count <= 0) {
        cpu_set_t set;
        count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    }
    return count > 256 ? 256 : count;
}

GV_EXPORT CUresult cuInit(unsigned int Flags)
{
    if (Flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load_explicit(&gv_driver.ready, memory_order_acquire)) {
        GV_ENTER_ANY();
        return CUDA_SUCCESS;
    }
    if (atomic_load(&forked))
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&starting);
    if (!atomic_load(&gv_driver.ready)) {
        gv_driver.board = gv_board_open();
        gv_driver.record = gv_driver.board != NULL ? gv_board_claim(gv_driver.board) : -1;
        if (gv_driver.record >= 0) {
            static bool asked; /* under `starting`: a second try must not add the rules again */
            gv_calls_start(&gv_driver.board->processes[gv_driver.record].armed);
            if (!asked)
                gv_faults_from_environment(gv_driver.board, false);
            asked = true;
            result = gv_armed() != 0 ? gv_inject_call("cuInit") : CUDA_SUCCESS;
        }
        if (gv_driver.record >= 0 && result == CUDA_SUCCESS) {
            gv_driver.device_count = (int)gv_driver.board->device_count;
            gv_driver.workers = count_workers();
            for (int d = 0; d < GV_BOARD_DEVICES; d++)
                gv_driver.place[d] = (uint8_t)d;
            gv_fault_install();
            gv_service_start();
            gv_model_spend(gv_model_of(0)->init_ns);
            pthread_atfork(NULL, NULL, in_child);
            atomic_store_explicit(&gv_driver.ready, true, memory_order_release);
        } else if (gv_driver.record < 0) {
            result = CUDA_ERROR_NO_DEVICE;
        }
    }
    pthread_mutex_unlock(&starting);
    return result;
}

GV_EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
    GV_ENTER_ANY();
    if (driverVersion == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = GV_HEADER_VERSION;
    return CUDA_SUCCESS;
}

/* Undocumented tables are never imitated: programs of the CUDA runtime need a real driver. */
GV_EXPORT CUresult cuGetExportTable(const void **ppExportTable, const CUuuid *pExportTableId)
{
    GV_ENTER_ANY();
    if (ppExportTable == NULL || pExportTableId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *ppExportTable = NULL;
    return CUDA_ERROR_NOT_FOUND;
}

/* cudaProfiler.h: documented to have no effect when no profiler is attached, which is always so here. */
GV_EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, int outputMode);
GV_EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, int outputMode)
{
    (void)configFile, (void)outputFile, (void)outputMode;
    GV_ENTER();
    return CUDA_ERROR_NOT_SUPPORTED; /* as on every GPU since Volta */
}

GV_EXPORT CUresult cuProfilerStart(void);
GV_EXPORT CUresult cuProfilerStart(void)
{
    GV_ENTER_CONTEXT(context);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuProfilerStop(void);
GV_EXPORT CUresult cuProfilerStop(void)
{
    GV_ENTER_CONTEXT(context);
    return CUDA_SUCCESS;
}
