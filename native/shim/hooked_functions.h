/* SPDX-License-Identifier: Apache-2.0
 *
 * The entry points that the shim writes by hand, each with the file that does. Read by native/generate/entry_points.py; those
 * of class `gate` (generate/classes.tsv) need no line here: their wrappers are generated. All others are forwarded.
 */

/* tables.c: passed through, and told */
GV_HOOK(cuGetExportTable)
/* proc_address.c */
GV_HOOK(cuGetProcAddress)
GV_HOOK(cuGetProcAddress_v2)

/* contexts.c: attach; the end of a context is the end of its memory */
GV_HOOK(cuDevicePrimaryCtxRetain)
GV_HOOK(cuDevicePrimaryCtxRelease)
GV_HOOK(cuDevicePrimaryCtxRelease_v2)
GV_HOOK(cuDevicePrimaryCtxReset)
GV_HOOK(cuDevicePrimaryCtxReset_v2)
GV_HOOK(cuCtxCreate)
GV_HOOK(cuCtxCreate_v2)
GV_HOOK(cuCtxCreate_v3)
GV_HOOK(cuCtxCreate_v4)
GV_HOOK(cuCtxDestroy)
GV_HOOK(cuCtxDestroy_v2)
GV_HOOK(cuCtxAttach)
GV_HOOK(cuCtxDetach)

/* streams.c: what to drain */
GV_HOOK(cuStreamCreate)
GV_HOOK(cuStreamCreateWithPriority)
GV_HOOK(cuStreamDestroy)
GV_HOOK(cuStreamDestroy_v2)
GV_HOOK(cuGreenCtxStreamCreate)

/* capture.c */
GV_HOOK(cuStreamBeginCapture)
GV_HOOK(cuStreamBeginCapture_ptsz)
GV_HOOK(cuStreamBeginCapture_v2)
GV_HOOK(cuStreamBeginCapture_v2_ptsz)
GV_HOOK(cuStreamBeginCaptureToGraph)
GV_HOOK(cuStreamBeginCaptureToGraph_ptsz)
GV_HOOK(cuStreamEndCapture)
GV_HOOK(cuStreamEndCapture_ptsz)
GV_HOOK(cuStreamWaitEvent)
GV_HOOK(cuStreamWaitEvent_ptsz)

/* host_functions.c: what may wait for a thread at the gate */
GV_HOOK(cuLaunchHostFunc)
GV_HOOK(cuLaunchHostFunc_ptsz)
GV_HOOK(cuLaunchHostFunc_v2)
GV_HOOK(cuLaunchHostFunc_v2_ptsz)
GV_HOOK(cuStreamAddCallback)
GV_HOOK(cuStreamAddCallback_ptsz)
GV_HOOK(cuGraphAddHostNode)

/* graph_memory.c: what memory nodes take; the gated ones as the generated wrappers */
GV_HOOK(cuGraphInstantiate)
GV_HOOK(cuGraphInstantiate_v2)
GV_HOOK(cuGraphInstantiateWithFlags)
GV_HOOK(cuGraphInstantiateWithParams)
GV_HOOK(cuGraphInstantiateWithParams_ptsz)
GV_HOOK(cuGraphLaunch)
GV_HOOK(cuGraphLaunch_ptsz)
GV_HOOK(cuGraphUpload)
GV_HOOK(cuGraphUpload_ptsz)
GV_HOOK(cuGraphExecDestroy)
GV_HOOK(cuGraphDestroy)
GV_HOOK(cuDeviceGraphMemTrim)

/* events.c: what pools follow */
GV_HOOK(cuEventRecord)
GV_HOOK(cuEventRecord_ptsz)
GV_HOOK(cuEventRecordWithFlags)
GV_HOOK(cuEventRecordWithFlags_ptsz)
GV_HOOK(cuEventDestroy)
GV_HOOK(cuEventDestroy_v2)
GV_HOOK(cuCtxRecordEvent)
GV_HOOK(cuGreenCtxRecordEvent)
GV_HOOK(cuIpcGetEventHandle)
GV_HOOK(cuIpcOpenEventHandle)

/* activity.c: proofs of idleness */
GV_HOOK(cuCtxSynchronize)
GV_HOOK(cuCtxSynchronize_v2)
GV_HOOK(cuStreamSynchronize)
GV_HOOK(cuStreamSynchronize_ptsz)
GV_HOOK(cuStreamQuery)
GV_HOOK(cuStreamQuery_ptsz)
GV_HOOK(cuEventQuery)
GV_HOOK(cuEventSynchronize)

/* allocation.c */
GV_HOOK(cuMemAlloc)
GV_HOOK(cuMemAlloc_v2)
GV_HOOK(cuMemAllocPitch)
GV_HOOK(cuMemAllocPitch_v2)
GV_HOOK(cuMemFree)
GV_HOOK(cuMemFree_v2)

/* modules.c: the driver's own memory for code */
GV_HOOK(cuModuleLoad)
GV_HOOK(cuModuleLoadData)
GV_HOOK(cuModuleLoadDataEx)
GV_HOOK(cuModuleLoadFatBinary)
GV_HOOK(cuLibraryLoadData)
GV_HOOK(cuLibraryLoadFromFile)

/* arrays.c, foreign.c, lent.c: memory that stays */
GV_HOOK(cuArrayCreate)
GV_HOOK(cuArrayCreate_v2)
GV_HOOK(cuArray3DCreate)
GV_HOOK(cuArray3DCreate_v2)
GV_HOOK(cuArrayDestroy)
GV_HOOK(cuMipmappedArrayCreate)
GV_HOOK(cuMipmappedArrayDestroy)
GV_HOOK(cuMemAllocManaged)
GV_HOOK(cuImportExternalMemory)
GV_HOOK(cuDestroyExternalMemory)
GV_HOOK(cuMulticastBindMem)
GV_HOOK(cuMulticastBindMem_v2)
GV_HOOK(cuMulticastBindAddr)
GV_HOOK(cuMulticastBindAddr_v2)
GV_HOOK(cuCtxSetLimit)

/* host_memory.c: the budget for pinned memory */
GV_HOOK(cuMemAllocHost)
GV_HOOK(cuMemAllocHost_v2)
GV_HOOK(cuMemHostAlloc)
GV_HOOK(cuMemFreeHost)
GV_HOOK(cuMemHostRegister)
GV_HOOK(cuMemHostRegister_v2)
GV_HOOK(cuMemHostUnregister)

/* pool.c */
GV_HOOK(cuMemAllocAsync)
GV_HOOK(cuMemAllocAsync_ptsz)
GV_HOOK(cuMemAllocFromPoolAsync)
GV_HOOK(cuMemAllocFromPoolAsync_ptsz)
GV_HOOK(cuMemFreeAsync)
GV_HOOK(cuMemFreeAsync_ptsz)
GV_HOOK(cuMemPoolCreate)
GV_HOOK(cuMemPoolDestroy)
GV_HOOK(cuMemPoolImportFromShareableHandle)
GV_HOOK(cuMemPoolGetAttribute)
GV_HOOK(cuMemPoolSetAttribute)
GV_HOOK(cuMemPoolTrimTo)

/* queries.c */
GV_HOOK(cuMemGetInfo)
GV_HOOK(cuMemGetInfo_v2)
GV_HOOK(cuMemGetAddressRange_v2)
GV_HOOK(cuPointerGetAttribute)
GV_HOOK(cuPointerGetAttributes)
GV_HOOK(cuPointerSetAttribute)

/* virtual.c: handles of the program's own memory management */
GV_HOOK(cuMemCreate)
GV_HOOK(cuMemRelease)
GV_HOOK(cuMemRetainAllocationHandle)
GV_HOOK(cuMemGetAllocationPropertiesFromHandle)
GV_HOOK(cuMemExportToShareableHandle)
GV_HOOK(cuMemImportFromShareableHandle)

/* virtual_map.c: its addresses */
GV_HOOK(cuMemAddressReserve)
GV_HOOK(cuMemAddressFree)
GV_HOOK(cuMemMap)
GV_HOOK(cuMemUnmap)
GV_HOOK(cuMemSetAccess)
GV_HOOK(cuMemGetAccess)

/* ipc.c, ipc_import.c */
GV_HOOK(cuIpcGetMemHandle)
GV_HOOK(cuMemGetHandleForAddressRange)
GV_HOOK(cuIpcOpenMemHandle)
GV_HOOK(cuIpcOpenMemHandle_v2)
GV_HOOK(cuIpcCloseMemHandle)
