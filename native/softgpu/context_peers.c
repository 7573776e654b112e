/* SPDX-License-Identifier: Apache-2.0
 *
 * Peer access between contexts. All soft devices of a process share its address space, so memory is within reach without it;
 * what was enabled is kept all the same, for its errors.
 */
#include "context.h"

static int place_of(const struct gv_context *context, const struct gv_context *peer)
{
    for (int i = 0; i < context->peer_count; i++)
        if (context->peers[i].context == peer && context->peers[i].id == peer->id)
            return i;
    return -1;
}

/* Another living context than the current one, or NULL. */
static struct gv_context *peer_of(CUcontext handle, const struct gv_context *context)
{
    struct gv_context *peer = gv_context_of(handle);
    return peer != NULL && peer != context && atomic_load(&peer->alive) ? peer : NULL;
}

GV_EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_context *peer = peer_of(peerContext, context);
    if (Flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (peer == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (peer->device == context->device)
        return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED; /* as cuDeviceCanAccessPeer says of a device and itself */
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&context->lock);
    if (place_of(context, peer) >= 0)
        result = CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    else if (context->peer_count == GV_PEERS_MOST)
        result = CUDA_ERROR_TOO_MANY_PEERS;
    else
        context->peers[context->peer_count++] = (struct gv_peer){peer, peer->id};
    pthread_mutex_unlock(&context->lock);
    return result;
}

GV_EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peerContext)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_context *peer = peer_of(peerContext, context);
    if (peer == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&context->lock);
    const int place = place_of(context, peer);
    if (place >= 0)
        context->peers[place] = context->peers[--context->peer_count];
    pthread_mutex_unlock(&context->lock);
    return place >= 0 ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
}
