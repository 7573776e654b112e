/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools that stay with the driver, since it alone can make them: shared with other processes, on the host, managed, or of
 * another device. Those that take memory of the GPU are charged as what they have reserved; an imported one is charged where it
 * was made.
 */
#ifndef GPUVIRT_SHIM_POOL_NATIVE_H
#define GPUVIRT_SHIM_POOL_NATIVE_H

#include "cuda_api.h"
#include "driver_heap.h"

int gv_pool_is_native(CUmemoryPool pool);

/* Is a pool with these properties one of them? */
int gv_pool_stays_native(const CUmemPoolProps *properties);

/* Notes a new one; 0, or -1 without host memory. `properties` NULL: imported. */
int gv_pool_add_native(CUmemoryPool pool, const CUmemPoolProps *properties);

/*
 * Around the driver's allocation: what it may take more from the device is charged, `taken` bytes of it. CUDA_ERROR_OUT_OF_MEMORY
 * when the quota does not allow that. `again`: the driver had no memory; charges anew if nothing was.
 */
CUresult gv_pool_native_begin(CUmemoryPool pool, uint64_t bytes, int again, uint64_t *taken);
void gv_pool_native_end(CUmemoryPool pool, uint64_t taken);

/* Memory of such a pool may have been freed: the charges follow. */
void gv_pool_natives_look(void);

/* Around the driver's end of one: what is in use stays charged until its context ends. */
void gv_pool_native_destroyed(CUmemoryPool pool, uint64_t used);
void gv_pool_natives_context_ended(void);
void gv_pool_natives_forget(void);

/* `call` allocates `bytes` from the pool, charged as above. */
#define GV_POOL_NATIVE(pool, bytes, call)                                                                              \
    ({                                                                                                                 \
        uint64_t gv_taken = 0;                                                                                         \
        CUresult gv_native = gv_pool_native_begin(pool, bytes, 0, &gv_taken);                                          \
        if (gv_native == CUDA_SUCCESS) {                                                                               \
            gv_native = (call);                                                                                        \
            if (gv_native == CUDA_ERROR_OUT_OF_MEMORY &&                                                               \
                gv_pool_native_begin(pool, bytes, 1, &gv_taken) == CUDA_SUCCESS)                                       \
                gv_native = GV_FIXED_CALL(gv_taken, call);                                                             \
            gv_pool_native_end(pool, gv_taken);                                                                        \
        }                                                                                                              \
        gv_native;                                                                                                     \
    })

#endif
