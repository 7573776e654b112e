/* SPDX-License-Identifier: Apache-2.0
 *
 * Setting and reading launch attributes. See launch_attributes.h.
 */
#include "launch_attributes.h"
#include "event.h"

#include <string.h>

static CUresult set_cluster(unsigned to[3], unsigned x, unsigned y, unsigned z)
{
    if ((uint64_t)x * y * z > 1)
        return CUDA_ERROR_NOT_SUPPORTED; /* one block, or no cluster at all, changes nothing */
    to[0] = x;
    to[1] = y;
    to[2] = z;
    return CUDA_SUCCESS;
}

static CUresult set_window(struct gv_launch_attributes *attributes, const CUaccessPolicyWindow *window)
{
    if (window->hitRatio < 0 || window->hitRatio > 1 || (unsigned)window->hitProp > CU_ACCESS_PROPERTY_PERSISTING ||
        (unsigned)window->missProp > CU_ACCESS_PROPERTY_STREAMING)
        return CUDA_ERROR_INVALID_VALUE;
    attributes->window = *window;
    return CUDA_SUCCESS;
}

/* The event is recorded after the kernel: a promise of "not before", never of "at once". */
static CUresult add_completion(struct gv_launch_attributes *attributes, CUevent handle, int flags)
{
    if (!gv_is(handle, GV_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!(((const struct gv_event *)handle)->flags & CU_EVENT_DISABLE_TIMING) ||
        flags & ~(int)CU_EVENT_RECORD_EXTERNAL || attributes->completions == 2)
        return CUDA_ERROR_INVALID_VALUE;
    attributes->completion[attributes->completions++] = handle;
    return CUDA_SUCCESS;
}

static int clamp_priority(int priority)
{
    return priority > 0 ? 0 : priority < GV_PRIORITY_HIGHEST ? GV_PRIORITY_HIGHEST : priority;
}

#define SET_CHECKED(member, value, valid)                                                                              \
    if (!(valid))                                                                                                      \
        return CUDA_ERROR_INVALID_VALUE;                                                                               \
    attributes->member = (value);                                                                                      \
    return CUDA_SUCCESS

CUresult gv_attribute_set(struct gv_launch_attributes *attributes, CUlaunchAttributeID id,
                          const CUlaunchAttributeValue *v)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        return set_window(attributes, &v->accessPolicyWindow);
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        SET_CHECKED(cooperative, v->cooperative != 0, true);
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        SET_CHECKED(synchronisation, v->syncPolicy,
                    v->syncPolicy >= CU_SYNC_POLICY_AUTO && v->syncPolicy <= CU_SYNC_POLICY_BLOCKING_SYNC);
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        return set_cluster(attributes->cluster, v->clusterDim.x, v->clusterDim.y, v->clusterDim.z);
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
        return set_cluster(attributes->preferred_cluster, v->preferredClusterDim.x, v->preferredClusterDim.y,
                           v->preferredClusterDim.z);
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        SET_CHECKED(scheduling, v->clusterSchedulingPolicyPreference,
                    (unsigned)v->clusterSchedulingPolicyPreference <= CU_CLUSTER_SCHEDULING_POLICY_LOAD_BALANCING);
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        SET_CHECKED(programmatic, v->programmaticStreamSerializationAllowed, true);
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        return add_completion(attributes, v->programmaticEvent.event, v->programmaticEvent.flags);
    case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        return add_completion(attributes, v->launchCompletionEvent.event, v->launchCompletionEvent.flags);
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        SET_CHECKED(priority, clamp_priority(v->priority), true);
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        SET_CHECKED(domains, v->memSyncDomainMap, true);
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        SET_CHECKED(domain, v->memSyncDomain, (unsigned)v->memSyncDomain <= CU_LAUNCH_MEM_SYNC_DOMAIN_REMOTE);
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE: /* needs launches from the device */
        return v->deviceUpdatableKernelNode.deviceUpdatable == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        SET_CHECKED(carveout, v->sharedMemCarveout, v->sharedMemCarveout <= 100);
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
        SET_CHECKED(link_scheduling, v->nvlinkUtilCentricScheduling, v->nvlinkUtilCentricScheduling <= 1);
    case CU_LAUNCH_ATTRIBUTE_PORTABLE_CLUSTER_SIZE_MODE:
        SET_CHECKED(portable_cluster, v->portableClusterSizeMode,
                    (unsigned)v->portableClusterSizeMode <= CU_LAUNCH_PORTABLE_CLUSTER_MODE_ALLOW_NON_PORTABLE);
    case CU_LAUNCH_ATTRIBUTE_SHARED_MEMORY_MODE:
        SET_CHECKED(shared_memory, v->sharedMemoryMode, true);
    default:
        return (unsigned)id < CU_LAUNCH_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult gv_attribute_get(const struct gv_launch_attributes *attributes, CUlaunchAttributeID id,
                          CUlaunchAttributeValue *v)
{
    memset(v, 0, sizeof *v);
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        v->accessPolicyWindow = attributes->window;
        break;
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        v->cooperative = attributes->cooperative;
        break;
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        v->syncPolicy = attributes->synchronisation != 0 ? attributes->synchronisation : CU_SYNC_POLICY_AUTO;
        break;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        memcpy(&v->clusterDim, attributes->cluster, sizeof attributes->cluster);
        break;
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
        memcpy(&v->preferredClusterDim, attributes->preferred_cluster, sizeof attributes->preferred_cluster);
        break;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        v->clusterSchedulingPolicyPreference = attributes->scheduling;
        break;
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        v->priority = attributes->priority;
        break;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        v->memSyncDomainMap = attributes->domains;
        break;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        v->memSyncDomain = attributes->domain;
        break;
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        break;
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        v->sharedMemCarveout = attributes->carveout;
        break;
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
        v->nvlinkUtilCentricScheduling = attributes->link_scheduling;
        break;
    case CU_LAUNCH_ATTRIBUTE_PORTABLE_CLUSTER_SIZE_MODE:
        v->portableClusterSizeMode = attributes->portable_cluster;
        break;
    case CU_LAUNCH_ATTRIBUTE_SHARED_MEMORY_MODE:
        v->sharedMemoryMode = attributes->shared_memory;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

bool gv_attribute_of_node(CUlaunchAttributeID id)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
    case CU_LAUNCH_ATTRIBUTE_PORTABLE_CLUSTER_SIZE_MODE:
    case CU_LAUNCH_ATTRIBUTE_SHARED_MEMORY_MODE:
        return true;
    default:
        return false;
    }
}

bool gv_attribute_of_stream(CUlaunchAttributeID id)
{
    return id == CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW || id == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY ||
           id == CU_LAUNCH_ATTRIBUTE_PRIORITY || id == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP ||
           id == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN;
}
