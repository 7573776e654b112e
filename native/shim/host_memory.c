/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory that the program pins: it stays what the driver makes of it, within a budget for each process that the daemon
 * sets (0: none). It takes no device memory, but memory of the host that nobody can swap.
 */
#include "host_memory.h"

#include "gate.h"
#include "notes.h"
#include "real_driver.h"
#include "session.h"

enum { ALLOCATED, REGISTERED };

static struct gv_notes notes = GV_NOTES_EMPTY;
static uint64_t pinned; /* bytes; changed with atomic adds, and copied to the client page */

void gv_host_memory_forget(void)
{
    gv_notes_forget(&notes);
    pinned = 0;
}

static void publish(void)
{
    if (!(gv_gate.obstacles & GV_UNATTACHED))
        gv_store64(&gv_client_page()->pinned_bytes, __atomic_load_n(&pinned, __ATOMIC_RELAXED));
}

static void give(uint64_t bytes)
{
    __atomic_fetch_sub(&pinned, bytes, __ATOMIC_RELAXED);
    gv_notes_unexpect(&notes);
    publish();
}

static CUresult take(uint64_t bytes)
{
    CUresult result = gv_session_attach_current();
    if (result == CUDA_SUCCESS && gv_notes_expect(&notes) != 0)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS)
        return result;
    const uint64_t before = __atomic_fetch_add(&pinned, bytes, __ATOMIC_RELAXED);
    const uint64_t quota = gv_load64(&gv_gate.lease->pinned_quota_bytes);
    publish();
    if (quota == 0 || (before <= quota && bytes <= quota - before))
        return CUDA_SUCCESS;
    give(bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void remember(uint32_t kind, const void *address, uint64_t bytes)
{
    CUcontext context = NULL;
    REAL(cuCtxGetCurrent)(&context);
    const struct gv_note note = {.key = (uint64_t)address, .bytes = bytes, .context = context, .kind = kind};
    gv_notes_put(&notes, &note);
}

/* A call that pins `bytes` at `address` (evaluated when it has succeeded). */
#define PIN(kind, bytes, call, address)                                                                                \
    const uint64_t its_bytes = (bytes);                                                                                \
    CUresult result = take(its_bytes);                                                                                 \
    if (result != CUDA_SUCCESS)                                                                                        \
        return result;                                                                                                 \
    result = call;                                                                                                     \
    if (result == CUDA_SUCCESS)                                                                                        \
        remember(kind, address, its_bytes);                                                                            \
    else                                                                                                               \
        give(its_bytes);                                                                                               \
    return result

/* The note leaves first: once the driver has freed the address, another thread may get it again. */
#define UNPIN(kind, address, call)                                                                                     \
    struct gv_note note;                                                                                               \
    const int known = gv_notes_take(&notes, kind, (uint64_t)(address), &note);                                         \
    const CUresult result = call;                                                                                      \
    if (known && result == CUDA_SUCCESS)                                                                               \
        give(note.bytes);                                                                                              \
    else if (known)                                                                                                    \
        gv_notes_put(&notes, &note);                                                                                   \
    return result

void gv_host_memory_context_ended(CUcontext context)
{
    struct gv_note note;
    uint64_t from = 0;
    while (context != NULL && gv_notes_take_of(&notes, context, &from, &note))
        give(note.bytes);
}

#define ALLOCATE(symbol, size)                                                                                         \
    GV_EXPORT CUresult symbol(void **pp, size bytesize)                                                                \
    {                                                                                                                  \
        if (pp == NULL || bytesize == 0)                                                                               \
            return REAL(symbol)(pp, bytesize);                                                                         \
        PIN(ALLOCATED, bytesize, REAL(symbol)(pp, bytesize), *pp);                                                     \
    }
ALLOCATE(cuMemAllocHost, unsigned int)
ALLOCATE(cuMemAllocHost_v2, size_t)

GV_EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    if (pp == NULL || bytesize == 0)
        return REAL(cuMemHostAlloc)(pp, bytesize, Flags);
    PIN(ALLOCATED, bytesize, REAL(cuMemHostAlloc)(pp, bytesize, Flags), *pp);
}

GV_EXPORT CUresult cuMemFreeHost(void *p) { UNPIN(ALLOCATED, p, REAL(cuMemFreeHost)(p)); }

#define REGISTER(symbol)                                                                                               \
    GV_EXPORT CUresult symbol(void *p, size_t bytesize, unsigned int Flags)                                            \
    {                                                                                                                  \
        /* A device's own memory (IOMEMORY) is pinned by nature. */                                                    \
        if (p == NULL || bytesize == 0 || (Flags & CU_MEMHOSTREGISTER_IOMEMORY) != 0)                                  \
            return REAL(symbol)(p, bytesize, Flags);                                                                   \
        PIN(REGISTERED, bytesize, REAL(symbol)(p, bytesize, Flags), p);                                                \
    }
REGISTER(cuMemHostRegister)
REGISTER(cuMemHostRegister_v2)

GV_EXPORT CUresult cuMemHostUnregister(void *p) { UNPIN(REGISTERED, p, REAL(cuMemHostUnregister)(p)); }
