/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of the program that a stream, or a graph, calls. They are not gated (nothing of them runs on the GPU), but one may
 * wait for a thread that stands at the gate, for its lock, or for the interpreter's: a drain behind it ends only when that
 * thread gets on.
 */
#include "gate.h"
#include "real_driver.h"

static void may_wait(void)
{
    if (!__atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED)) /* beside what each launch reads: written once */
        __atomic_store_n(&gv_gate.may_wait, 1, __ATOMIC_RELAXED);
}

#define NOTE(symbol, parameters, arguments)                                                                            \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        may_wait();                                                                                                    \
        return REAL(symbol) arguments;                                                                                 \
    }
NOTE(cuLaunchHostFunc, (CUstream hStream, CUhostFn fn, void *userData), (hStream, fn, userData))
NOTE(cuLaunchHostFunc_ptsz, (CUstream hStream, CUhostFn fn, void *userData), (hStream, fn, userData))
NOTE(cuLaunchHostFunc_v2, (CUstream hStream, CUhostFn fn, void *userData, unsigned int syncMode),
     (hStream, fn, userData, syncMode))
NOTE(cuLaunchHostFunc_v2_ptsz, (CUstream hStream, CUhostFn fn, void *userData, unsigned int syncMode),
     (hStream, fn, userData, syncMode))
NOTE(cuStreamAddCallback, (CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags),
     (hStream, callback, userData, flags))
NOTE(cuStreamAddCallback_ptsz, (CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags),
     (hStream, callback, userData, flags))
NOTE(cuGraphAddHostNode,
     (CUgraphNode * phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
      const CUDA_HOST_NODE_PARAMS *nodeParams),
     (phGraphNode, hGraph, dependencies, numDependencies, nodeParams))
