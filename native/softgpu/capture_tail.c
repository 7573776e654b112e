/* SPDX-License-Identifier: Apache-2.0
 *
 * Tails: the nodes that the next one of a stream depends on. See capture.h.
 */
#include "capture.h"

#include <stdlib.h>

bool gv_tail_add(struct gv_tail *tail, CUgraphNode node, CUgraphEdgeData data)
{
    for (size_t i = 0; i < tail->count; i++)
        if (tail->nodes[i] == node)
            return true;
    if (tail->count == tail->room) {
        const size_t room = tail->room * 2 + 4;
        CUgraphNode *nodes = realloc(tail->nodes, room * sizeof *nodes);
        if (nodes != NULL)
            tail->nodes = nodes;
        CUgraphEdgeData *all = nodes != NULL ? realloc(tail->data, room * sizeof *all) : NULL;
        if (all == NULL)
            return false;
        tail->data = all;
        tail->room = room;
    }
    tail->nodes[tail->count] = node;
    tail->data[tail->count++] = data;
    return true;
}

bool gv_tail_join(struct gv_tail *tail, const struct gv_tail *other)
{
    for (size_t i = 0; i < other->count; i++)
        if (!gv_tail_add(tail, other->nodes[i], other->data[i]))
            return false;
    return true;
}

void gv_tail_free(struct gv_tail *tail)
{
    free(tail->nodes);
    free(tail->data);
    *tail = (struct gv_tail){0};
}
