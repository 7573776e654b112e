/* SPDX-License-Identifier: Apache-2.0
 *
 * cuIpcOpenMemHandle and cuIpcCloseMemHandle: memory of another process of the job. A handle that is opened again gives the
 * same address; what is opened stays until it was closed as often, whatever the exporter does meanwhile.
 */
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "contexts.h"
#include "fixed.h"
#include "gate.h"
#include "ipc.h"
#include "ipc_ticket.h"
#include "log.h"
#include "real_driver.h"
#include "room.h"
#include "session.h"
#include "settled.h"
#include "sharing.h"
#include "streams.h"

struct import {
    uint64_t base, bytes; /* first: compared. The allocation as the program sees it */
    struct gv_ipc_ticket ticket;
    uint64_t area, area_bytes; /* the extents around it */
    CUmemGenericAllocationHandle *handles;
    uint64_t orphaned; /* extents that the exporter has gone from: charged here, since they are resident */
    uint64_t serial;
    CUcontext context;
    uint32_t opened; /* how often; 0 while it is being mapped or unmapped */
    struct import *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* never held across a driver call or a wait */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void *by_address; /* tree of struct import, those with opened != 0 */
static void *by_ticket;  /* all */
static struct import *imports;

void gv_imports_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&changed, NULL);
    by_address = by_ticket = NULL;
    imports = NULL;
}

static int compare_addresses(const void *left, const void *right)
{
    const struct import *a = left, *b = right;
    if (a->base + a->bytes <= b->base)
        return -1;
    return b->base + b->bytes <= a->base ? 1 : 0;
}

static int compare_tickets(const void *left, const void *right)
{
    const struct import *a = left, *b = right;
    return memcmp(&a->ticket, &b->ticket, sizeof a->ticket);
}

static struct import *around(uint64_t address)
{
    const struct import key = {.base = address, .bytes = 1};
    struct import *const *const node = tfind(&key, &by_address, compare_addresses);
    return node == NULL ? NULL : *node;
}

int gv_import_find(CUdeviceptr address, struct gv_range *range)
{
    pthread_mutex_lock(&lock);
    const struct import *const import = around(address);
    if (import != NULL)
        *range = (struct gv_range){.address = import->base,
                                   .bytes = import->bytes,
                                   .asked_bytes = import->bytes,
                                   .serial = import->serial,
                                   .context = import->context,
                                   .in_use = 1};
    pthread_mutex_unlock(&lock);
    return import != NULL;
}

/* --- mapping -------------------------------------------------------------------------------------------------------------- */

/* Under no lock; `mapped` extents of it are mapped. */
static void unmap(struct import *import, uint64_t mapped)
{
    while (mapped-- > 0) {
        REAL(cuMemUnmap)(import->area + mapped * import->ticket.extent_bytes, import->ticket.extent_bytes);
        REAL(cuMemRelease)(import->handles[mapped]);
    }
    REAL(cuMemAddressFree)(import->area, import->area_bytes);
}

static CUresult map_one(struct import *import, uint64_t index, int descriptor)
{
    CUresult result = REAL(cuMemImportFromShareableHandle)(&import->handles[index], (void *)(intptr_t)descriptor,
                                                           CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemMap)(import->area + index * import->ticket.extent_bytes, import->ticket.extent_bytes, 0,
                            import->handles[index], 0);
    if (result != CUDA_SUCCESS)
        REAL(cuMemRelease)(import->handles[index]);
    return result;
}

static CUresult map(struct import *import)
{
    const struct gv_ipc_ticket *const ticket = &import->ticket;
    CUdeviceptr area = 0;
    CUresult result = REAL(cuMemAddressReserve)(&area, import->area_bytes, 0, 0, 0);
    if (result != CUDA_SUCCESS)
        return result;
    import->area = area;
    uint64_t mapped = 0;
    while (mapped < ticket->count && result == CUDA_SUCCESS) {
        int descriptors[GV_SHARE_MAX];
        const uint64_t left = ticket->count - mapped;
        const uint32_t part = (uint32_t)(left < GV_SHARE_MAX ? left : GV_SHARE_MAX);
        result = gv_sharing_fetch(ticket->pid, ticket->nonce, ticket->first + mapped, part, descriptors);
        for (uint32_t i = 0; i < part; i++) {
            if (result == CUDA_SUCCESS && (result = map_one(import, mapped, descriptors[i])) == CUDA_SUCCESS)
                mapped++;
            if (descriptors[i] >= 0)
                close(descriptors[i]); /* the import has its own */
        }
    }
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (result == CUDA_SUCCESS)
        result = REAL(cuMemSetAccess)(area, import->area_bytes, &access, 1);
    if (result != CUDA_SUCCESS)
        unmap(import, mapped);
    return result;
}

/* --- open ----------------------------------------------------------------------------------------------------------------- */

static int is_sound(const struct gv_ipc_ticket *ticket)
{
    return gv_extent_is_size(ticket->extent_bytes) && ticket->count != 0 &&
           ticket->count <= gv_memory.bytes / ticket->extent_bytes && ticket->offset < ticket->extent_bytes &&
           ticket->bytes != 0 && ticket->bytes <= ticket->count * ticket->extent_bytes - ticket->offset;
}

/* Under the lock, which is left while others map or unmap the same: opens it again, or enters a new record (*fresh). */
static CUresult enter(const struct gv_ipc_ticket *ticket, CUcontext context, struct import **entered, int *fresh)
{
    const struct import key = {.ticket = *ticket};
    struct import *const *node;
    *fresh = 0;
    while ((node = tfind(&key, &by_ticket, compare_tickets)) != NULL && (*node)->opened == 0)
        gv_wait_settled(&changed, &lock, NULL);
    if (node != NULL) {
        *entered = *node;
        if ((*node)->context != context)
            return CUDA_ERROR_INVALID_CONTEXT; /* documented: by one context of a process only */
        (*node)->opened++;
        return CUDA_SUCCESS;
    }
    struct import *const import = calloc(1, sizeof *import);
    CUmemGenericAllocationHandle *const handles = calloc(ticket->count, sizeof *handles);
    if (import != NULL)
        *import = (struct import){.ticket = *ticket, .context = context, .handles = handles};
    if (import == NULL || handles == NULL || tsearch(import, &by_ticket, compare_tickets) == NULL) {
        free(handles);
        free(import);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    import->area_bytes = ticket->count * ticket->extent_bytes;
    import->next = imports;
    imports = import;
    *entered = import;
    *fresh = 1;
    return CUDA_SUCCESS;
}

void gv_imports_orphaned(uint32_t pid, uint64_t nonce, uint64_t first, uint64_t count)
{
    pthread_mutex_lock(&lock);
    for (struct import *import = imports; import != NULL; import = import->next) {
        if (import->ticket.pid != pid || import->ticket.nonce != nonce)
            continue;
        uint64_t orphaned = 0;
        for (uint64_t i = first; i < first + count; i++)
            orphaned += i - import->ticket.first < import->ticket.count;
        import->orphaned += orphaned;
        /* Beyond the quota too, and without waiting for room: the memory is there already. */
        pthread_mutex_lock(&gv_memory.lock);
        gv_memory.fixed_bytes += orphaned * import->ticket.extent_bytes;
        pthread_mutex_unlock(&gv_memory.lock);
        while (orphaned-- > 0)
            gv_fixed_count(GV_FIXED_IMPORTED, import->ticket.extent_bytes);
    }
    pthread_mutex_unlock(&lock);
}

/* Under the lock: it is nowhere any more. Returns the extents that were charged here. */
static uint64_t erase(struct import *import)
{
    const uint64_t orphaned = import->orphaned;
    struct import **link = &imports;
    while (*link != import)
        link = &(*link)->next;
    *link = import->next;
    tdelete(import, &by_ticket, compare_tickets);
    free(import->handles);
    free(import);
    pthread_cond_broadcast(&changed);
    return orphaned;
}

static void discharge(uint64_t orphaned, uint64_t extent_bytes)
{
    if (orphaned != 0)
        gv_room_give(orphaned * extent_bytes);
    while (orphaned-- > 0)
        gv_fixed_uncount(GV_FIXED_IMPORTED, extent_bytes);
}

static CUresult open_ours(CUdeviceptr *pdptr, const struct gv_ipc_ticket *ticket)
{
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS && context == NULL)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS)
        result = gv_session_attach_current();
    if (result != CUDA_SUCCESS)
        return result;
    if (ticket->pid == (uint32_t)getpid() && ticket->nonce == gv_sharing_nonce())
        return CUDA_ERROR_INVALID_CONTEXT; /* what a driver says about a handle of the same process */
    if (!is_sound(ticket))
        return CUDA_ERROR_INVALID_HANDLE;
    struct import *import = NULL;
    int fresh;
    pthread_mutex_lock(&lock);
    result = enter(ticket, context, &import, &fresh);
    if (result == CUDA_SUCCESS && !fresh)
        *pdptr = import->base;
    pthread_mutex_unlock(&lock);
    if (result != CUDA_SUCCESS || !fresh)
        return result;
    const CUstreamCaptureMode mode = gv_capture_relax();
    result = map(import);
    gv_capture_restore(mode);
    uint64_t orphaned = 0;
    pthread_mutex_lock(&lock);
    if (result == CUDA_SUCCESS) {
        import->base = import->area + ticket->offset;
        import->bytes = ticket->bytes;
        if (tsearch(import, &by_address, compare_addresses) == NULL)
            result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS) {
        import->serial = __atomic_add_fetch(&gv_memory.serial, 1, __ATOMIC_ACQ_REL);
        import->opened = 1;
        *pdptr = import->base;
        pthread_cond_broadcast(&changed);
    } else {
        orphaned = erase(import);
    }
    pthread_mutex_unlock(&lock);
    discharge(orphaned, ticket->extent_bytes);
    return result;
}

/* A handle of a process outside gpuvirt: its memory is nobody's here but on this device; it is charged while it is open. */
static CUresult open_foreign(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int flags)
{
    size_t bytes = 0;
    CUresult result = REAL(cuIpcOpenMemHandle_v2)(pdptr, handle, flags);
    if (result != CUDA_SUCCESS || gv_fixed_find(GV_FIXED_IMPORTED, *pdptr) != 0 ||
        REAL(cuMemGetAddressRange_v2)(NULL, &bytes, *pdptr) != CUDA_SUCCESS)
        return result;
    result = gv_fixed_charge(GV_FIXED_IMPORTED, bytes);
    if (result == CUDA_SUCCESS && gv_fixed_remember(GV_FIXED_IMPORTED, *pdptr, bytes) != 0) {
        gv_fixed_discharge(GV_FIXED_IMPORTED, bytes);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result != CUDA_SUCCESS)
        REAL(cuIpcCloseMemHandle)(*pdptr);
    return result;
}

GV_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    struct gv_ipc_ticket ticket;
    memcpy(&ticket, &handle, sizeof ticket);
    if (pdptr == NULL || ticket.magic != GV_IPC_MAGIC)
        return pdptr == NULL ? CUDA_ERROR_INVALID_VALUE : open_foreign(pdptr, handle, Flags);
    if (Flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    return open_ours(pdptr, &ticket);
}

GV_EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    return cuIpcOpenMemHandle_v2(pdptr, handle, Flags);
}

/* --- close ---------------------------------------------------------------------------------------------------------------- */

/* Under the lock: nobody finds it any more; it is the caller's to unmap. */
static void close_import(struct import *import)
{
    import->opened = 0;
    tdelete(import, &by_address, compare_addresses);
}

/* Work in flight may use it. Beside a capture a context is not synchronised: its other streams are waited for. */
static CUresult finish_work(CUcontext owner)
{
    CUresult result = gv_contexts_finish(owner);
    if (result != CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        return result;
    const int pushed = REAL(cuCtxPushCurrent_v2)(owner) == CUDA_SUCCESS;
    const CUstreamCaptureMode mode = gv_capture_relax();
    result = gv_streams_drain(owner);
    gv_capture_restore(mode);
    if (pushed)
        REAL(cuCtxPopCurrent_v2)(&owner);
    return result;
}

static void finish_close(struct import *import)
{
    const CUstreamCaptureMode mode = gv_capture_relax(); /* something may capture beside it */
    unmap(import, import->ticket.count);
    gv_capture_restore(mode);
    const uint64_t extent_bytes = import->ticket.extent_bytes;
    pthread_mutex_lock(&lock);
    const uint64_t orphaned = erase(import);
    pthread_mutex_unlock(&lock);
    discharge(orphaned, extent_bytes);
}

GV_EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr dptr)
{
    CUcontext current = NULL;
    const CUresult lacking = REAL(cuCtxGetCurrent)(&current);
    pthread_mutex_lock(&lock);
    struct import *const import = around(dptr);
    const int opened = import != NULL && import->base == dptr;
    const int possible = lacking == CUDA_SUCCESS && current != NULL, last = opened && possible && import->opened == 1;
    if (opened && !possible)
        ; /* as with the driver, nothing happens */
    else if (last)
        close_import(import);
    else if (opened)
        import->opened--;
    pthread_mutex_unlock(&lock);
    if (!opened) {
        if (gv_memory_owns(dptr))
            return CUDA_ERROR_INVALID_VALUE;
        const CUresult result = REAL(cuIpcCloseMemHandle)(dptr);
        size_t bytes = 0;
        if (result == CUDA_SUCCESS && gv_fixed_find(GV_FIXED_IMPORTED, dptr) != 0 &&
            REAL(cuMemGetAddressRange_v2)(NULL, &bytes, dptr) != CUDA_SUCCESS)
            gv_fixed_freed(GV_FIXED_IMPORTED, dptr); /* not open any more */
        return result;
    }
    if (!last)
        return possible ? CUDA_SUCCESS : lacking != CUDA_SUCCESS ? lacking : CUDA_ERROR_INVALID_CONTEXT;
    const CUresult result = finish_work(import->context);
    finish_close(import);
    return result;
}

void gv_imports_context_ended(CUcontext context)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct import *import = imports;
        while (import != NULL && (import->context != context || import->opened == 0))
            import = import->next;
        if (import != NULL)
            close_import(import);
        pthread_mutex_unlock(&lock);
        if (import == NULL)
            return;
        finish_close(import);
    }
}
