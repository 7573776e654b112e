/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemAdvise, cuMemRangeGetAttribute(s): what was advised is kept for each page and told. It moves nothing, since nothing
 * migrates by itself here.
 */
#include "managed.h"
#include "pool.h"

#include <sched.h>
#include <string.h>

CUresult gv_managed_location(CUmemLocation given, CUmemLocation *location)
{
    unsigned node = 0;
    *location = (CUmemLocation){.type = given.type, .id = given.id};
    switch (given.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return gv_check_device(given.id);
    case CU_MEM_LOCATION_TYPE_HOST:
        location->id = 0;
        return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
        return gv_has_numa_node(given.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        getcpu(NULL, &node);
        *location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST_NUMA, .id = (int)node};
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

struct change {
    CUmem_advise advice;
    CUmemLocation location;
};

static uint64_t bit_of(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE ? 1ull << location->id : GV_BY_HOST;
}

static void apply(struct gv_advice *advice, void *data)
{
    const struct change *change = data;
    switch (change->advice) {
    case CU_MEM_ADVISE_SET_READ_MOSTLY:
    case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
        advice->read_mostly = change->advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
        break;
    case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
        advice->preferred = change->location;
        break;
    case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        advice->preferred = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_INVALID};
        break;
    case CU_MEM_ADVISE_SET_ACCESSED_BY:
        advice->accessed_by |= bit_of(&change->location);
        break;
    default:
        advice->accessed_by &= ~bit_of(&change->location);
        break;
    }
}

static CUresult advise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
    struct gv_managed_range range;
    struct change change = {.advice = advice};
    switch (advice) {
    case CU_MEM_ADVISE_SET_READ_MOSTLY: /* the location is ignored */
    case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
    case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        break;
    case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
        GV_TRY(gv_managed_location(location, &change.location));
        break;
    case CU_MEM_ADVISE_SET_ACCESSED_BY:
    case CU_MEM_ADVISE_UNSET_ACCESSED_BY:
        if (location.type != CU_MEM_LOCATION_TYPE_DEVICE && location.type != CU_MEM_LOCATION_TYPE_HOST)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_managed_location(location, &change.location));
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    GV_TRY(gv_managed_check(devPtr, count, &range));
    gv_managed_each(&range, true, apply, &change);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
    GV_ENTER();
    return advise(devPtr, count, advice, location);
}

GV_EXPORT CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
    GV_ENTER();
    const CUmemLocation location = {
        .type = device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    return advise(devPtr, count, advice, location);
}

/* What all parts of a range have in common. */
struct common {
    bool any;
    struct gv_advice advice;
    bool preferred_differs, prefetched_differs;
};

static bool same_place(const CUmemLocation *a, const CUmemLocation *b) { return a->type == b->type && a->id == b->id; }

static void add(struct gv_advice *advice, void *data)
{
    struct common *common = data;
    if (!common->any) {
        common->any = true;
        common->advice = *advice;
        return;
    }
    common->advice.read_mostly &= advice->read_mostly;
    common->advice.accessed_by &= advice->accessed_by;
    common->preferred_differs |= !same_place(&common->advice.preferred, &advice->preferred);
    common->prefetched_differs |= !same_place(&common->advice.prefetched, &advice->prefetched);
}

static int device_number(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE    ? location->id
           : location->type == CU_MEM_LOCATION_TYPE_INVALID ? CU_DEVICE_INVALID
                                                            : CU_DEVICE_CPU;
}

static void list_devices(uint64_t accessed_by, int *devices, size_t room)
{
    size_t count = 0;
    for (int d = 0; d < GV_BOARD_DEVICES && count < room; d++)
        if (accessed_by >> d & 1)
            devices[count++] = d;
    if (accessed_by & GV_BY_HOST && count < room)
        devices[count++] = CU_DEVICE_CPU;
    while (count < room)
        devices[count++] = CU_DEVICE_INVALID;
}

static CUresult answer(void *data, size_t dataSize, CUmem_range_attribute attribute, const struct common *common)
{
    const CUmemLocation nowhere = {.type = CU_MEM_LOCATION_TYPE_INVALID, .id = CU_DEVICE_INVALID};
    const CUmemLocation *preferred = common->preferred_differs ? &nowhere : &common->advice.preferred;
    const CUmemLocation *prefetched = common->prefetched_differs ? &nowhere : &common->advice.prefetched;
    if (data == NULL || dataSize == 0 || dataSize % 4 != 0 ||
        (attribute != CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY && dataSize != 4))
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
        *(int *)data = common->advice.read_mostly;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
        *(int *)data = device_number(preferred);
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
        list_devices(common->advice.accessed_by, data, dataSize / sizeof(int));
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
        *(int *)data = device_number(prefetched);
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
        *(CUmemLocationType *)data = preferred->type;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
        *(int *)data = preferred->id;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
        *(CUmemLocationType *)data = prefetched->type;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
        *(int *)data = prefetched->id;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

GV_EXPORT CUresult cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute,
                                          CUdeviceptr devPtr, size_t count)
{
    GV_ENTER();
    struct gv_managed_range range;
    struct common common = {0};
    GV_TRY(gv_managed_check(devPtr, count, &range));
    gv_managed_each(&range, false, add, &common);
    return answer(data, dataSize, attribute, &common);
}

GV_EXPORT CUresult cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes,
                                           size_t numAttributes, CUdeviceptr devPtr, size_t count)
{
    GV_ENTER();
    struct gv_managed_range range;
    struct common common = {0};
    if (data == NULL || dataSizes == NULL || attributes == NULL || numAttributes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_managed_check(devPtr, count, &range));
    gv_managed_each(&range, false, add, &common);
    for (size_t i = 0; i < numAttributes; i++)
        GV_TRY(answer(data[i], dataSizes[i], attributes[i], &common));
    return CUDA_SUCCESS;
}
