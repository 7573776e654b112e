/* SPDX-License-Identifier: Apache-2.0
 *
 * The default and the current pool of a place: a device, host memory, a NUMA node, or managed memory that prefers one of these.
 */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

struct place {
    CUmemAllocationType type;
    CUmemLocation location;
    struct gv_pool *standard, *current; /* `current` NULL: the default one */
    struct place *next;
};

static struct place *places; /* under gv_memory_lock; never shortened */

/* Under the lock; NULL: out of memory. */
static struct place *place_of(CUmemAllocationType type, const CUmemLocation *location)
{
    for (struct place *place = places; place != NULL; place = place->next)
        if (place->type == type && place->location.type == location->type && place->location.id == location->id)
            return place;
    struct place *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    made->standard = gv_pool_new(type, *location);
    if (made->standard == NULL) {
        free(made);
        return NULL;
    }
    made->standard->is_default = true;
    made->type = type;
    made->location = *location;
    made->next = places;
    places = made;
    return made;
}

void gv_pool_leave_places(const struct gv_pool *pool)
{
    for (struct place *place = places; place != NULL; place = place->next)
        if (place->current == pool)
            place->current = NULL;
}

static CUresult check(const CUmemLocation *given, CUmemAllocationType type, CUmemLocation *location)
{
    if (given == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUmemPoolProps properties;
    memset(&properties, 0, sizeof properties);
    properties.allocType = type;
    properties.location = *given;
    return gv_pool_check(&properties, location);
}

static CUresult look_up(CUmemoryPool *pool, const CUmemLocation *given, CUmemAllocationType type, bool standard)
{
    CUmemLocation location;
    if (pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check(given, type, &location));
    pthread_mutex_lock(&gv_memory_lock);
    struct place *place = place_of(type, &location);
    if (place != NULL)
        *pool = (CUmemoryPool)(standard || place->current == NULL ? place->standard : place->current);
    pthread_mutex_unlock(&gv_memory_lock);
    return place == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
    GV_ENTER();
    return look_up(pool_out, location, type, true);
}

GV_EXPORT CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
    GV_ENTER();
    return look_up(pool, location, type, false);
}

GV_EXPORT CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool handle)
{
    GV_ENTER();
    CUmemLocation wanted;
    GV_TRY(check(location, type, &wanted));
    struct gv_pool *pool = gv_pool_of(handle);
    if (pool == NULL || pool->imported || pool->type != type || pool->location.type != wanted.type ||
        pool->location.id != wanted.id)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    struct place *place = place_of(type, &wanted);
    if (place != NULL)
        place->current = pool;
    pthread_mutex_unlock(&gv_memory_lock);
    return place == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUmemLocation of_device(CUdevice device)
{
    return (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
}

GV_EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    const CUmemLocation location = of_device(dev);
    return look_up(pool_out, &location, CU_MEM_ALLOCATION_TYPE_PINNED, true);
}

GV_EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    const CUmemLocation location = of_device(dev);
    return look_up(pool, &location, CU_MEM_ALLOCATION_TYPE_PINNED, false);
}

GV_EXPORT CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    CUmemLocation location = of_device(dev);
    return cuMemSetMemPool(&location, CU_MEM_ALLOCATION_TYPE_PINNED, handle);
}
