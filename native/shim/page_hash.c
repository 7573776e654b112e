/* SPDX-License-Identifier: Apache-2.0 */
#include "page_hash.h"

#include <pthread.h>
#include <string.h>

#include "log.h"
#include "real_driver.h"

enum { PLACES = 8 };

/* What is loaded into one context. */
struct place {
    CUcontext context; /* NULL: free */
    int useless;       /* it could not be loaded there, and cannot be */
    CUmodule module;
    CUfunction function;
    CUstream stream;
    CUevent done[GV_HASH_BATCHES];
    struct gv_page_hash *results; /* [GV_HASH_BATCHES][GV_HASH_BATCH_PAGES] */
    CUdeviceptr results_on_device;
};

/* Who destroys a context waits until the control thread has left it; the lock is for the table alone. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct place places[PLACES];
static int said; /* control thread */

void gv_page_hash_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    memset(places, 0, sizeof places);
    said = 0;
}

void gv_page_hash_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PLACES; i++)
        if (places[i].context == context)
            memset(&places[i], 0, sizeof places[i]);
    pthread_mutex_unlock(&lock);
}

/* The place of a context, or else a free one; NULL: none is left. */
static struct place *place_of(CUcontext context)
{
    struct place *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PLACES && (found == NULL || found->context != context); i++)
        if (places[i].context == context || (places[i].context == NULL && found == NULL))
            found = &places[i];
    pthread_mutex_unlock(&lock);
    return found;
}

static struct place *current_place(void)
{
    CUcontext context = NULL;
    if (REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS || context == NULL)
        return NULL;
    struct place *const place = place_of(context);
    if (place != NULL && place->context == NULL)
        place->context = context;
    return place;
}

static CUresult load(struct place *place)
{
    CUresult result = REAL(cuModuleLoadData)(&place->module, gv_page_hash_ptx);
    if (result == CUDA_SUCCESS)
        result = REAL(cuModuleGetFunction)(&place->function, place->module, "gv_page_hash");
    if (result == CUDA_SUCCESS)
        result = REAL(cuStreamCreate)(&place->stream, CU_STREAM_NON_BLOCKING);
    for (int i = 0; i < GV_HASH_BATCHES && result == CUDA_SUCCESS; i++)
        result = REAL(cuEventCreate)(&place->done[i], CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
    void *results = NULL;
    if (result == CUDA_SUCCESS)
        result = REAL(cuMemHostAlloc)(&results, (size_t)GV_HASH_BATCHES * GV_HASH_BATCH_PAGES * sizeof *place->results,
                                      CU_MEMHOSTALLOC_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = REAL(cuMemHostGetDevicePointer_v2)(&place->results_on_device, results, 0);
    place->results = results;
    return result;
}

static void unload(struct place *place)
{
    if (place->results != NULL)
        REAL(cuMemFreeHost)(place->results);
    for (int i = 0; i < GV_HASH_BATCHES; i++)
        if (place->done[i] != NULL)
            REAL(cuEventDestroy_v2)(place->done[i]);
    if (place->stream != NULL)
        REAL(cuStreamDestroy_v2)(place->stream);
    if (place->module != NULL)
        REAL(cuModuleUnload)(place->module);
    *place = (struct place){.context = place->context};
}

int gv_page_hash_load(void)
{
    struct place *const place = current_place();
    if (place == NULL || place->useless)
        return 0;
    if (place->results_on_device != 0)
        return 1;
    const CUresult result = load(place);
    if (result == CUDA_SUCCESS)
        return 1;
    unload(place);
    place->useless = result != CUDA_ERROR_OUT_OF_MEMORY; /* that may pass */
    if (!said)
        gv_log(
            "cannot hash device memory (CUDA error %d): all of it is copied when it is swapped, also what is unchanged",
            (int)result);
    said = 1;
    return 0;
}

static CUresult launch(const struct place *place, struct gv_hash_runs *runs, int used, uint32_t blocks,
                       struct gv_hash_key *key, CUdeviceptr results)
{
    for (int i = used; i < GV_HASH_RUNS; i++)
        runs->first[i] = UINT32_MAX;
    void *parameters[] = {runs, key, &results};
    return REAL(cuLaunchKernel)(place->function, blocks, 1, 1, GV_HASH_LANES, GV_HASH_WARPS, 1, 0, place->stream,
                                parameters, NULL);
}

CUresult gv_page_hash_submit(uint32_t batch, const CUdeviceptr *pages, uint32_t count, const struct gv_hash_key *key)
{
    const struct place *const place = current_place();
    if (place == NULL || place->results_on_device == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct gv_hash_key parameter = *key;
    struct gv_hash_runs runs;
    CUresult result = CUDA_SUCCESS;
    uint32_t begin = 0; /* of the launch that is being put together */
    int used = 0;
    memset(&runs, 0, sizeof runs);
    for (uint32_t i = 0; i <= count && result == CUDA_SUCCESS; i++) {
        if (i != 0 && i != count && pages[i] == pages[i - 1] + GV_HASH_PAGE_BYTES)
            continue;
        if (i != begin && (i == count || used == GV_HASH_RUNS)) {
            const uint64_t index = (uint64_t)batch * GV_HASH_BATCH_PAGES + begin;
            result = launch(place, &runs, used, i - begin, &parameter,
                            place->results_on_device + index * sizeof *place->results);
            begin = i;
            used = 0;
        }
        if (i != count) {
            runs.address[used] = pages[i];
            runs.first[used++] = i - begin;
        }
    }
    /* Also after an error: what was launched may still write. */
    const CUresult marked = REAL(cuEventRecord)(place->done[batch], place->stream);
    return result == CUDA_SUCCESS ? marked : result;
}

CUresult gv_page_hash_wait(uint32_t batch, const struct gv_page_hash **hashes)
{
    const struct place *const place = current_place();
    if (place == NULL || place->results_on_device == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    *hashes = place->results + (uint64_t)batch * GV_HASH_BATCH_PAGES;
    return REAL(cuEventSynchronize)(place->done[batch]);
}

void gv_page_hash_settle(void)
{
    const struct place *const place = current_place();
    if (place != NULL && place->stream != NULL)
        REAL(cuStreamSynchronize)(place->stream);
}
