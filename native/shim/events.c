/* SPDX-License-Identifier: Apache-2.0
 *
 * Events, as far as pools follow them: what is recorded behind a free that waits for its stream. Costs one load a call while
 * none does. An event is forgotten before the driver records it anew, and noted after it has.
 */
#include "gate.h"
#include "real_driver.h"
#include "waiting.h"

#define RECORD(symbol, default_stream, parameters, arguments)                                                          \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        if (!gv_pool_anything_waits())                                                                                 \
            return REAL(symbol) arguments;                                                                             \
        gv_pool_event_ends(hEvent);                                                                                    \
        const CUresult result = REAL(symbol) arguments;                                                                \
        if (result == CUDA_SUCCESS)                                                                                    \
            gv_pool_event_recorded(hEvent, hStream == NULL ? default_stream : hStream);                                \
        return result;                                                                                                 \
    }
RECORD(cuEventRecord, NULL, (CUevent hEvent, CUstream hStream), (hEvent, hStream))
RECORD(cuEventRecord_ptsz, CU_STREAM_PER_THREAD, (CUevent hEvent, CUstream hStream), (hEvent, hStream))
RECORD(cuEventRecordWithFlags, NULL, (CUevent hEvent, CUstream hStream, unsigned int flags), (hEvent, hStream, flags))
RECORD(cuEventRecordWithFlags_ptsz, CU_STREAM_PER_THREAD, (CUevent hEvent, CUstream hStream, unsigned int flags),
       (hEvent, hStream, flags))

/* Recorded by other means, or gone: its handle says nothing any more. */
#define FORGET(symbol, parameters, arguments)                                                                          \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        gv_pool_event_ends(hEvent);                                                                                    \
        return REAL(symbol) arguments;                                                                                 \
    }
FORGET(cuEventDestroy, (CUevent hEvent), (hEvent))
FORGET(cuEventDestroy_v2, (CUevent hEvent), (hEvent))
FORGET(cuCtxRecordEvent, (CUcontext hCtx, CUevent hEvent), (hCtx, hEvent))
FORGET(cuGreenCtxRecordEvent, (CUgreenCtx hCtx, CUevent hEvent), (hCtx, hEvent))

/* Another process may record it. */
GV_EXPORT CUresult cuIpcGetEventHandle(CUipcEventHandle *pHandle, CUevent event)
{
    gv_pool_follows_no_event();
    return REAL(cuIpcGetEventHandle)(pHandle, event);
}

GV_EXPORT CUresult cuIpcOpenEventHandle(CUevent *phEvent, CUipcEventHandle handle)
{
    gv_pool_follows_no_event();
    return REAL(cuIpcOpenEventHandle)(phEvent, handle);
}
