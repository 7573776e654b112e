/* SPDX-License-Identifier: Apache-2.0
 *
 * Events of several processes (CU_EVENT_INTERPROCESS): their numbers are in a slot of a page that all map.
 *
 * The pages of a process are one memfd, mapped at the first such event and never unmapped: whoever waits on a slot may do so
 * after the event is gone. A slot that is used again goes on counting, so late readers of an old handle see an event that
 * has been recorded, nothing worse.
 */
#include "event.h"
#include "ipc.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 1024, LOOK_NS = 50000000 };

/* A cache line. All fields are atomic and written by every process that has the event. */
struct gv_event_slot {
    _Atomic uint64_t recorded; /* number of the last record call of any process; never reset */
    _Atomic uint64_t done;     /* the last record that a stream has reached; never reset. Its low half is the futex */
    _Atomic uint32_t waiters;
    _Atomic uint32_t recorder; /* pid of the last process that recorded, with its start time: a dead one ends nothing */
    _Atomic uint64_t recorder_start;
    uint8_t reserved[32];
};
_Static_assert(sizeof(struct gv_event_slot) == 64, "a cache line");

/* Pages of another process, kept for all its events. */
struct pages {
    struct gv_ipc_handle of; /* pid, start time, inode */
    struct gv_event_slot *slots;
    struct pages *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below */
static struct gv_event_slot *own_slots;
static int own_fd = -1;
static bool used[SLOTS];
static struct pages *others;

/* Under the lock. */
static bool have_own_slots(void)
{
    if (own_slots != NULL)
        return true;
    const size_t bytes = SLOTS * sizeof *own_slots;
    const int fd = memfd_create("gpuvirt-softgpu-events", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    void *memory =
        ftruncate(fd, (off_t)bytes) == 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (memory == MAP_FAILED) {
        close(fd);
        return false;
    }
    own_slots = memory;
    own_fd = fd;
    return true;
}

struct gv_event_slot *gv_event_slot_new(void)
{
    struct gv_event_slot *slot = NULL;
    pthread_mutex_lock(&lock);
    for (int s = 0; have_own_slots() && s < SLOTS && slot == NULL; s++)
        if (!used[s]) {
            used[s] = true;
            slot = &own_slots[s];
        }
    pthread_mutex_unlock(&lock);
    return slot;
}

void gv_event_slot_free(struct gv_event_slot *slot)
{
    pthread_mutex_lock(&lock);
    if (slot >= own_slots && slot < own_slots + SLOTS)
        used[slot - own_slots] = false;
    pthread_mutex_unlock(&lock);
}

bool gv_event_slots_used(void)
{
    pthread_mutex_lock(&lock);
    bool any = others != NULL;
    for (int s = 0; s < SLOTS && !any; s++)
        any = used[s];
    pthread_mutex_unlock(&lock);
    return any;
}

static bool reached(const struct gv_event_slot *slot, uint64_t number)
{
    return atomic_load_explicit(&slot->done, memory_order_acquire) >= number;
}

static void advance(struct gv_event_slot *slot, uint64_t number)
{
    uint64_t old = atomic_load(&slot->done);
    while (old < number && !atomic_compare_exchange_weak(&slot->done, &old, number)) {
    }
    if (atomic_load(&slot->waiters) != 0)
        syscall(SYS_futex, (uint32_t *)&slot->done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* A process that was killed between record and completion would hold everybody up: its records count as done. */
static void wait_for(struct gv_event_slot *slot, uint64_t number)
{
    const struct timespec limit = {0, LOOK_NS};
    atomic_fetch_add(&slot->waiters, 1);
    while (!reached(slot, number)) {
        const uint64_t now = atomic_load(&slot->done);
        if (now >= number)
            break;
        if (syscall(SYS_futex, (uint32_t *)&slot->done, FUTEX_WAIT, (uint32_t)now, &limit, NULL, 0) != 0 &&
            errno == ETIMEDOUT && !gv_ipc_alive(atomic_load(&slot->recorder), atomic_load(&slot->recorder_start)))
            advance(slot, number);
    }
    atomic_fetch_sub(&slot->waiters, 1);
}

struct slot_operation {
    struct gv_operation operation;
    struct gv_event_slot *slot;
    uint64_t number;
};

static CUresult run_record(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    const struct slot_operation *self = (const struct slot_operation *)operation;
    advance(self->slot, self->number);
    return CUDA_SUCCESS;
}

static CUresult run_wait(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    const struct slot_operation *self = (const struct slot_operation *)operation;
    wait_for(self->slot, self->number);
    return CUDA_SUCCESS;
}

/* Records let waiters go when the context fails. Neither can be captured: a graph would need numbers of its own. */
static const struct gv_operation_kind record_kind = {.node = GV_NO_NODE, .always = true, .run = run_record};
static const struct gv_operation_kind wait_kind = {.node = GV_NO_NODE, .run = run_wait};

CUresult gv_event_slot_record(struct gv_event_slot *slot, struct gv_stream *stream)
{
    struct slot_operation *record = malloc(sizeof *record);
    if (record == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    record->operation.kind = &record_kind;
    record->slot = slot;
    uint32_t pid;
    uint64_t start_time;
    gv_ipc_self(&pid, &start_time);
    atomic_store(&slot->recorder_start, start_time);
    atomic_store(&slot->recorder, pid);
    record->number = atomic_fetch_add(&slot->recorded, 1) + 1;
    return gv_stream_submit(stream, &record->operation);
}

CUresult gv_event_slot_wait(struct gv_event_slot *slot, struct gv_stream *stream)
{
    const uint64_t number = atomic_load(&slot->recorded);
    if (reached(slot, number))
        return CUDA_SUCCESS;
    struct slot_operation *wait = malloc(sizeof *wait);
    if (wait == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    wait->operation.kind = &wait_kind;
    wait->slot = slot;
    wait->number = number;
    return gv_stream_submit(stream, &wait->operation);
}

bool gv_event_slot_done(struct gv_event_slot *slot)
{
    const uint64_t number = atomic_load(&slot->recorded);
    if (!reached(slot, number) && !gv_ipc_alive(atomic_load(&slot->recorder), atomic_load(&slot->recorder_start)))
        advance(slot, number);
    return reached(slot, number);
}

void gv_event_slot_synchronise(struct gv_event_slot *slot) { wait_for(slot, atomic_load(&slot->recorded)); }

GV_EXPORT CUresult cuIpcGetEventHandle(CUipcEventHandle *pHandle, CUevent event)
{
    GV_ENTER();
    const struct gv_event *known = gv_is(event, GV_EVENT) ? (const struct gv_event *)event : NULL;
    if (pHandle == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    /* Only the process that created it has a handle to give. */
    if (known == NULL || !(known->flags & CU_EVENT_INTERPROCESS) || known->slot < own_slots ||
        known->slot >= own_slots + SLOTS)
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(gv_context_state(known->context));
    struct gv_ipc_handle handle;
    GV_TRY(gv_ipc_name(&handle, GV_IPC_EVENT, own_fd));
    handle.offset = (uint64_t)(known->slot - own_slots);
    memset(pHandle, 0, sizeof *pHandle);
    memcpy(pHandle, &handle, sizeof handle);
    return CUDA_SUCCESS;
}

/* Under the lock. */
static CUresult pages_of(const struct gv_ipc_handle *handle, struct gv_event_slot **slots)
{
    for (const struct pages *known = others; known != NULL; known = known->next)
        if (known->of.pid == handle->pid && known->of.start_time == handle->start_time &&
            known->of.inode == handle->inode) {
            *slots = known->slots;
            return CUDA_SUCCESS;
        }
    struct pages *made = malloc(sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    int fd;
    CUresult result = gv_ipc_open(handle, GV_IPC_EVENT, &fd);
    if (result == CUDA_SUCCESS) {
        made->slots = mmap(NULL, SLOTS * sizeof *made->slots, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (made->slots == MAP_FAILED)
            result = CUDA_ERROR_MAP_FAILED;
    }
    if (result != CUDA_SUCCESS) {
        free(made);
        return result;
    }
    made->of = *handle;
    made->next = others;
    others = made;
    *slots = made->slots;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuIpcOpenEventHandle(CUevent *phEvent, CUipcEventHandle handle)
{
    GV_ENTER_CONTEXT(context);
    if (phEvent == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_ipc_handle name;
    memcpy(&name, &handle, sizeof name);
    if (name.what != GV_IPC_EVENT || name.offset >= SLOTS)
        return CUDA_ERROR_INVALID_HANDLE;
    if (gv_ipc_is_own(&name))
        return CUDA_ERROR_INVALID_CONTEXT; /* as for memory */
    struct gv_event_slot *slots = NULL;
    pthread_mutex_lock(&lock);
    const CUresult result = pages_of(&name, &slots);
    pthread_mutex_unlock(&lock);
    if (result != CUDA_SUCCESS)
        return result;
    struct gv_event *event = gv_object_new(GV_EVENT, sizeof *event);
    if (event == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    event->context = context;
    event->flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    event->created_at = atomic_load(&event->recorded);
    event->after = (struct gv_dependency){NULL, 0};
    event->slot = &slots[name.offset];
    *phEvent = (CUevent)event;
    return CUDA_SUCCESS;
}
