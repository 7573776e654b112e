/* SPDX-License-Identifier: Apache-2.0 */
#include "swap.h"

#include <stdlib.h>

#include "arena.h"
#include "contexts.h"
#include "gate.h"
#include "log.h"
#include "memory.h"
#include "real_driver.h"

CUresult gv_swap_copy_in(const uint64_t *indexes, uint64_t count, uint64_t *bytes)
{
    CUresult result = CUDA_SUCCESS;
    CUstream stream = NULL;
    *bytes = 0;
    for (uint64_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
        const struct gv_extent *const extent = &gv_memory.extents[indexes[i]];
        if (!extent->saved)
            continue;
        if (stream == NULL) {
            result = gv_contexts_enter();
            if (result == CUDA_SUCCESS && (stream = gv_contexts_stream()) == NULL)
                result = CUDA_ERROR_INVALID_HANDLE;
            if (result != CUDA_SUCCESS)
                break;
        }
        result = REAL(cuMemcpyHtoDAsync_v2)(gv_extent_address(indexes[i]), gv_arena_address(extent->slot - 1),
                                            gv_memory.extent_bytes, stream);
        *bytes += gv_memory.extent_bytes;
    }
    if (stream != NULL) {
        const CUresult finished = REAL(cuStreamSynchronize)(stream);
        result = result == CUDA_SUCCESS ? finished : result;
    }
    return result;
}

/* Host memory for all of them, before the first byte moves. Slots of a try that failed stay for the next one. */
static CUresult reserve_slots(const uint64_t *indexes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct gv_extent *const extent = &gv_memory.extents[indexes[i]];
        if (extent->slot != 0)
            continue;
        const int32_t slot = gv_arena_reserve();
        if (slot < 0) {
            gv_debug("no host memory to swap out %llu extents", (unsigned long long)count);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        pthread_mutex_lock(&gv_memory.lock);
        extent->slot = slot + 1;
        pthread_mutex_unlock(&gv_memory.lock);
    }
    return CUDA_SUCCESS;
}

CUresult gv_swap_copy_out(const uint64_t *indexes, uint64_t count, void (*release)(uint64_t index), uint64_t *done)
{
    *done = 0;
    CUresult result = gv_contexts_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (gv_gate_lost_context() !=
        CUDA_SUCCESS) { /* no copy is possible, and every byte is lost to the program anyway */
        for (; *done < count; (*done)++)
            release(indexes[*done]);
        return CUDA_SUCCESS;
    }
    CUstream const stream = gv_contexts_stream();
    CUevent *const events = calloc(count, sizeof *events);
    if (stream == NULL || events == NULL) {
        free(events);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    result = reserve_slots(indexes, count);
    uint64_t submitted = 0;
    while (submitted < count && result == CUDA_SUCCESS) {
        const struct gv_extent *const extent = &gv_memory.extents[indexes[submitted]];
        result = REAL(cuMemcpyDtoHAsync_v2)(gv_arena_address(extent->slot - 1), gv_extent_address(indexes[submitted]),
                                            gv_memory.extent_bytes, stream);
        if (result == CUDA_SUCCESS)
            result = REAL(cuEventCreate)(&events[submitted], CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
        if (result == CUDA_SUCCESS)
            result = REAL(cuEventRecord)(events[submitted], stream);
        submitted += result == CUDA_SUCCESS;
    }
    /* Unmap the first while the later ones copy. What was submitted is finished, also after an error further on. */
    for (CUresult finished = CUDA_SUCCESS; *done < submitted && finished == CUDA_SUCCESS;) {
        finished = REAL(cuEventSynchronize)(events[*done]);
        if (finished != CUDA_SUCCESS) {
            result = finished;
            break;
        }
        gv_memory.extents[indexes[*done]].saved = 1;
        release(indexes[(*done)++]);
    }
    REAL(cuStreamSynchronize)(stream);
    for (uint64_t i = 0; i < count; i++)
        if (events[i] != NULL)
            REAL(cuEventDestroy_v2)(events[i]);
    free(events);
    return result;
}
