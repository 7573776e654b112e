/* SPDX-License-Identifier: Apache-2.0
 *
 * User objects: things of the program whose destructor is called when the last reference has gone. Graphs own references;
 * executable graphs take their own at instantiation and give them up when they are destroyed and no launch runs.
 */
#include "graph.h"

#include <limits.h>
#include <stdlib.h>

struct gv_user_object {
    struct gv_object object;
    _Atomic uint64_t references;
    CUhostFn destroy;
    void *data;
};
struct gv_user_reference {
    struct gv_user_object *object;
    uint64_t count;
};

static struct gv_user_object *user_object_of(CUuserObject handle)
{
    return gv_is(handle, GV_USER_OBJECT) ? (struct gv_user_object *)handle : NULL;
}

static void drop(struct gv_user_object *object, uint64_t count)
{
    if (atomic_fetch_sub(&object->references, count) != count)
        return;
    const CUhostFn destroy = object->destroy;
    void *data = object->data;
    gv_object_free(object, GV_USER_OBJECT);
    destroy(data);
}

static bool add(struct gv_user_references *to, struct gv_user_object *object, uint64_t count)
{
    for (uint32_t i = 0; i < to->count; i++)
        if (to->list[i].object == object) {
            to->list[i].count += count;
            return true;
        }
    if (to->count == to->room) {
        const uint32_t room = to->room * 2 + 4;
        struct gv_user_reference *list = realloc(to->list, room * sizeof *list);
        if (list == NULL)
            return false;
        to->list = list;
        to->room = room;
    }
    to->list[to->count++] = (struct gv_user_reference){object, count};
    return true;
}

bool gv_user_references_add(struct gv_user_references *to, const struct gv_user_references *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        if (!add(to, from->list[i].object, 1))
            return false;
        atomic_fetch_add(&from->list[i].object->references, 1);
    }
    return true;
}

void gv_user_references_release(struct gv_user_references *references)
{
    struct gv_user_references all = *references;
    *references = (struct gv_user_references){0};
    for (uint32_t i = 0; i < all.count; i++)
        drop(all.list[i].object, all.list[i].count);
    free(all.list);
}

GV_EXPORT CUresult cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy,
                                      unsigned int initialRefcount, unsigned int flags)
{
    GV_ENTER();
    if (object_out == NULL || destroy == NULL || initialRefcount == 0 || initialRefcount > INT_MAX ||
        flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_user_object *object = gv_object_new(GV_USER_OBJECT, sizeof *object);
    if (object == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    atomic_store(&object->references, initialRefcount);
    object->destroy = destroy;
    object->data = ptr;
    *object_out = (CUuserObject)object;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuUserObjectRetain(CUuserObject handle, unsigned int count)
{
    GV_ENTER();
    struct gv_user_object *object = user_object_of(handle);
    if (object == NULL || count == 0 || count > INT_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    atomic_fetch_add(&object->references, count);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuUserObjectRelease(CUuserObject handle, unsigned int count)
{
    GV_ENTER();
    struct gv_user_object *object = user_object_of(handle);
    if (object == NULL || count == 0 || count > INT_MAX || count > atomic_load(&object->references))
        return CUDA_ERROR_INVALID_VALUE;
    drop(object, count);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphRetainUserObject(CUgraph hGraph, CUuserObject handle, unsigned int count, unsigned int flags)
{
    GV_ENTER();
    struct gv_graph *graph = gv_graph_of(hGraph);
    struct gv_user_object *object = user_object_of(handle);
    if (graph == NULL || object == NULL || count == 0 || count > INT_MAX ||
        flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE)
        return CUDA_ERROR_INVALID_VALUE;
    if (!add(&graph->users, object, count))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!(flags & CU_GRAPH_USER_OBJECT_MOVE))
        atomic_fetch_add(&object->references, count);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphReleaseUserObject(CUgraph hGraph, CUuserObject handle, unsigned int count)
{
    GV_ENTER();
    struct gv_graph *graph = gv_graph_of(hGraph);
    struct gv_user_object *object = user_object_of(handle);
    if (graph == NULL || object == NULL || count == 0 || count > INT_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < graph->users.count; i++) {
        struct gv_user_reference *reference = &graph->users.list[i];
        if (reference->object != object)
            continue;
        if (count > reference->count)
            return CUDA_ERROR_INVALID_VALUE;
        reference->count -= count;
        if (reference->count == 0)
            *reference = graph->users.list[--graph->users.count];
        drop(object, count);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}
