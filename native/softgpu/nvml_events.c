/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML events: sets of (device, types), and waiting for the next event that is in one. A set sees what happens after a device
 * was registered with it.
 */
#include "nvml_device.h"

#include <pthread.h>
#include <stdlib.h>

#define SUPPORTED (nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError | nvmlEventTypeXidCriticalError)

struct nvmlEventSet_st {
    uint64_t types[GV_BOARD_DEVICES]; /* under `lock`, as all */
    uint64_t after;                   /* number of the last event seen */
    struct nvmlEventSet_st *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvmlEventSet_st *sets;

/* Under the lock. */
static bool is_set(nvmlEventSet_t set)
{
    for (const struct nvmlEventSet_st *known = sets; known != NULL; known = known->next)
        if (known == set)
            return true;
    return false;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *eventTypes)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (eventTypes == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *eventTypes = SUPPORTED;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (set == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct nvmlEventSet_st *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NVML_ERROR_MEMORY;
    made->after = __atomic_load_n(&board->events.last, __ATOMIC_ACQUIRE);
    pthread_mutex_lock(&lock);
    made->next = sets;
    sets = made;
    pthread_mutex_unlock(&lock);
    *set = made;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    GV_NVML_ENTER();
    nvmlReturn_t result = NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    for (struct nvmlEventSet_st **link = &sets; *link != NULL; link = &(*link)->next)
        if (*link == set) {
            *link = set->next;
            free(set);
            result = NVML_SUCCESS;
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    nvmlReturn_t result = NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    if (is_set(set)) {
        result = eventTypes & ~(unsigned long long)SUPPORTED ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
        if (result == NVML_SUCCESS)
            set->types[number] |= eventTypes;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* What there is now: SUCCESS, TIMEOUT when nothing, GPU_IS_LOST when a device of the set is and all was told. */
static nvmlReturn_t take(struct gv_board *board, nvmlEventSet_t set, nvmlEventData_t *data, uint64_t *after)
{
    struct gv_board_event event;
    nvmlReturn_t result = NVML_ERROR_INVALID_ARGUMENT; /* freed by another thread */
    pthread_mutex_lock(&lock);
    if (is_set(set)) {
        result = NVML_ERROR_TIMEOUT;
        if (gv_board_next_event(board, &set->after, set->types, &event)) {
            data->device = gv_nvml_handle(event.device);
            data->eventType = event.type;
            data->eventData = event.type == GV_EVENT_XID ? event.data : 0;
            data->gpuInstanceId = data->computeInstanceId = 0xffffffffu;
            result = NVML_SUCCESS;
        }
        for (uint32_t d = 0; d < board->device_count && result == NVML_ERROR_TIMEOUT; d++)
            if (set->types[d] != 0 && __atomic_load_n(&board->devices[d].faults.lost, __ATOMIC_ACQUIRE))
                result = NVML_ERROR_GPU_IS_LOST;
        *after = set->after;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    GV_NVML_ENTER();
    struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (data == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    const uint64_t end = gv_board_now_ns() + timeoutms * 1000000ull;
    for (;;) {
        uint64_t after;
        const nvmlReturn_t result = take(board, set, data, &after);
        const uint64_t now = gv_board_now_ns();
        if (result != NVML_ERROR_TIMEOUT || now >= end)
            return result;
        gv_board_await_event(board, after, end - now);
    }
}

GV_EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    return nvmlEventSetWait_v2(set, data, timeoutms);
}
