/* SPDX-License-Identifier: Apache-2.0
 *
 * Launch attributes: of a launch, of a kernel node, of a stream. Most only tune: they are kept, so that they can be read back,
 * and have no effect here.
 */
#ifndef GPUVIRT_SOFTGPU_LAUNCH_ATTRIBUTES_H
#define GPUVIRT_SOFTGPU_LAUNCH_ATTRIBUTES_H

#include "driver.h"

enum { GV_PRIORITY_HIGHEST = -5 };

struct gv_launch_attributes {
    CUaccessPolicyWindow window;
    int cooperative;
    CUsynchronizationPolicy synchronisation; /* 0: as in a new stream */
    unsigned cluster[3], preferred_cluster[3];
    CUclusterSchedulingPolicy scheduling;
    int programmatic; /* may overlap with the kernel before it: never does */
    int priority;
    CUlaunchMemSyncDomainMap domains;
    CUlaunchMemSyncDomain domain;
    unsigned carveout, link_scheduling;
    CUlaunchAttributePortableClusterMode portable_cluster;
    CUsharedMemoryMode shared_memory;
    /* Of one launch only: events recorded when the kernel has ended, which is as early as is promised. */
    CUevent completion[2];
    unsigned completions;
};

/* Values out of range: INVALID_VALUE; what would change the meaning of a launch and is not there: NOT_SUPPORTED. */
CUresult gv_attribute_set(struct gv_launch_attributes *attributes, CUlaunchAttributeID id,
                          const CUlaunchAttributeValue *value);
CUresult gv_attribute_get(const struct gv_launch_attributes *attributes, CUlaunchAttributeID id,
                          CUlaunchAttributeValue *value);
/* Those that a kernel node has; those that a stream has. */
bool gv_attribute_of_node(CUlaunchAttributeID id);
bool gv_attribute_of_stream(CUlaunchAttributeID id);

#endif
