/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory nodes at a launch, and what cuDevice*Graph* tell of them.
 */
#include "graph_exec.h"
#include "memory.h"

static bool is_memory(const struct gv_plan_node *node, CUgraphNodeType type)
{
    return node->type == type && node->work != NULL;
}

struct check {
    bool auto_free;
    CUresult result;
};

/* An allocation of this graph that an earlier launch left; a free of what is not there. */
static bool check_node(const struct gv_plan_node *node, void *data)
{
    struct check *check = data;
    const bool allocates = is_memory(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    if (!allocates && !is_memory(node, CU_GRAPH_NODE_TYPE_MEM_FREE))
        return true;
    const struct gv_graph_allocation *allocation = gv_graph_allocation_of(node->work);
    const bool outstanding = gv_graph_memory_freeable(allocation);
    if (allocates ? outstanding && !check->auto_free : !outstanding && gv_graph_allocation_stays(allocation))
        check->result = CUDA_ERROR_INVALID_VALUE;
    return check->result == CUDA_SUCCESS;
}

static bool want_node(const struct gv_plan_node *node, void *data)
{
    if (is_memory(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC))
        gv_graph_allocation_want(gv_graph_allocation_of(node->work), *(const bool *)data);
    return true;
}

static bool give_node(const struct gv_plan_node *node, void *data)
{
    CUresult *result = data;
    if (is_memory(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC))
        *result = gv_graph_allocation_give(gv_graph_allocation_of(node->work));
    return *result == CUDA_SUCCESS;
}

static bool note_node(const struct gv_plan_node *node, void *data)
{
    (void)data;
    if (is_memory(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC)) {
        struct gv_graph_allocation *allocation = gv_graph_allocation_of(node->work);
        gv_graph_allocation_set(allocation, gv_graph_allocation_stays(allocation));
    } else if (is_memory(node, CU_GRAPH_NODE_TYPE_MEM_FREE)) {
        gv_graph_allocation_set(gv_graph_allocation_of(node->work), false);
    }
    return true;
}

CUresult gv_graph_memory_prepare(const struct gv_plan *plan, bool launch, bool auto_free)
{
    struct check check = {.auto_free = auto_free, .result = CUDA_SUCCESS};
    bool wanted = true;
    pthread_mutex_lock(&gv_memory_lock);
    if (launch)
        gv_plan_each(plan, check_node, &check);
    if (check.result == CUDA_SUCCESS) {
        gv_plan_each(plan, want_node, &wanted);
        gv_plan_each(plan, give_node, &check.result);
        wanted = false;
        gv_plan_each(plan, want_node, &wanted);
    }
    if (check.result == CUDA_SUCCESS && launch)
        gv_plan_each(plan, note_node, NULL);
    pthread_mutex_unlock(&gv_memory_lock);
    return check.result;
}

struct use {
    struct gv_gauge *gauge;
    uint64_t until;
};

static bool use_node(const struct gv_plan_node *node, void *data)
{
    const struct use *use = data;
    if (is_memory(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC) || is_memory(node, CU_GRAPH_NODE_TYPE_MEM_FREE))
        gv_graph_allocation_busy(gv_graph_allocation_of(node->work), use->gauge, use->until);
    return true;
}

void gv_graph_memory_busy(const struct gv_plan *plan, struct gv_gauge *gauge, uint64_t until)
{
    struct use use = {gauge, until};
    pthread_mutex_lock(&gv_memory_lock);
    gv_plan_each(plan, use_node, &use);
    pthread_mutex_unlock(&gv_memory_lock);
}

GV_EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    GV_ENTER();
    GV_TRY(gv_check_device(device));
    pthread_mutex_lock(&gv_memory_lock);
    gv_graph_memory_trim(device);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    GV_ENTER();
    GV_TRY(gv_check_device(device));
    if (value == NULL || (unsigned)attr > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    const bool used = attr == CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT || attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
    const bool high = attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH || attr == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
    pthread_mutex_lock(&gv_memory_lock);
    *(cuuint64_t *)value = high ? *gv_graph_memory_high(device, used) : gv_graph_memory_sum(device, used);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

/* High marks can only be reset; they start again from what there is now. */
GV_EXPORT CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    GV_ENTER();
    GV_TRY(gv_check_device(device));
    const bool used = attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
    if (value == NULL || (!used && attr != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) || *(const cuuint64_t *)value != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    *gv_graph_memory_high(device, used) = gv_graph_memory_sum(device, used);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}
