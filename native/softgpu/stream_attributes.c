/* SPDX-License-Identifier: Apache-2.0
 *
 * cuStreamGetAttribute, cuStreamSetAttribute, cuStreamCopyAttributes. What is set is kept and read back; the priority is
 * handed to what the stream captures, the others only tune.
 */
#include "capture.h"
#include "launch_attributes.h"

#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* stream->attributes of all streams */

static struct gv_launch_attributes read_all(const struct gv_stream *stream)
{
    struct gv_launch_attributes all = {0};
    pthread_mutex_lock(&lock);
    if (stream->attributes != NULL)
        all = *stream->attributes;
    pthread_mutex_unlock(&lock);
    all.priority = stream->priority;
    return all;
}

static CUresult write_all(struct gv_stream *stream, const struct gv_launch_attributes *all)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    if (stream->attributes == NULL)
        stream->attributes = malloc(sizeof *stream->attributes); /* kept with the object for the next stream */
    if (stream->attributes != NULL)
        *stream->attributes = *all;
    else
        result = CUDA_ERROR_OUT_OF_MEMORY;
    stream->priority = all->priority;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuStreamGetAttribute(CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue *value)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (value == NULL || !gv_attribute_of_stream(attr))
        return CUDA_ERROR_INVALID_VALUE;
    const struct gv_launch_attributes all = read_all(stream);
    return gv_attribute_get(&all, attr, value);
}

GV_EXPORT CUresult cuStreamSetAttribute(CUstream hStream, CUstreamAttrID attr, const CUstreamAttrValue *param)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (param == NULL || !gv_attribute_of_stream(attr))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_launch_attributes all = read_all(stream);
    GV_TRY(gv_attribute_set(&all, attr, param));
    return write_all(stream, &all);
}

/* "The two streams must belong to the same context." */
GV_EXPORT CUresult cuStreamCopyAttributes(CUstream dst, CUstream src)
{
    GV_ENTER();
    struct gv_stream *to, *from;
    GV_TRY(gv_stream_of(dst, &to));
    GV_TRY(gv_stream_of(src, &from));
    if (to->context != from->context)
        return CUDA_ERROR_INVALID_VALUE;
    const struct gv_launch_attributes all = read_all(from);
    return write_all(to, &all);
}
