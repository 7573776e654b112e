/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools of another process. The descriptor of a pool is a memfd with its name; the data of a pointer is a handle as of
 * cuIpcGetMemHandle (ipc.h), and imports are mapped the same way.
 */
#include "ipc.h"
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the memfd of an exported pool holds. */
struct pool_name {
    uint32_t what; /* GV_IPC_POOL */
    uint32_t pid;
    uint64_t start_time;
    uint64_t id;
    int32_t device; /* GV_HOST: of a NUMA node */
    int32_t location_type, location_id;
};

/* Under the lock. */
static CUresult name_pool(struct gv_pool *pool)
{
    struct pool_name name = {.what = GV_IPC_POOL,
                             .id = pool->id,
                             .device = pool->heap.device,
                             .location_type = (int32_t)pool->location.type,
                             .location_id = pool->location.id};
    gv_ipc_self(&name.pid, &name.start_time);
    if (pool->fd >= 0)
        return CUDA_SUCCESS;
    pool->fd = memfd_create("gpuvirt-softgpu-pool", MFD_CLOEXEC);
    if (pool->fd < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (write(pool->fd, &name, sizeof name) != (ssize_t)sizeof name) {
        close(pool->fd);
        pool->fd = -1;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolExportToShareableHandle(void *handle_out, CUmemoryPool handle,
                                                    CUmemAllocationHandleType handleType, unsigned long long flags)
{
    GV_ENTER();
    struct gv_pool *pool = gv_pool_of(handle);
    if (handle_out == NULL || pool == NULL || pool->imported || flags != 0 ||
        handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || !(pool->handle_types & (unsigned)handleType))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    CUresult result = name_pool(pool);
    const int fd = result == CUDA_SUCCESS ? fcntl(pool->fd, F_DUPFD_CLOEXEC, 0) : -1;
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS && fd < 0)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS)
        memcpy(handle_out, &fd, sizeof fd);
    return result;
}

GV_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle,
                                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    GV_ENTER();
    if (pool_out == NULL || flags != 0 || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    struct pool_name name;
    const int fd = (int)(intptr_t)handle; /* the descriptor itself, not its address */
    if (pread(fd, &name, sizeof name, 0) != (ssize_t)sizeof name || name.what != GV_IPC_POOL || name.device < GV_HOST ||
        name.device >= gv_driver.device_count)
        return CUDA_ERROR_INVALID_VALUE;
    const CUmemLocation location = {.type = (CUmemLocationType)name.location_type, .id = name.location_id};
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_pool *pool = gv_pool_new(CU_MEM_ALLOCATION_TYPE_PINNED, location);
    if (pool != NULL) {
        pool->imported = true;
        pool->id = name.id;
        pool->exporter = name.pid;
        pool->exporter_start = name.start_time;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    *pool_out = (CUmemoryPool)pool;
    return pool == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *shareData_out, CUdeviceptr ptr)
{
    GV_ENTER();
    if (shareData_out == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    struct gv_ipc_handle handle;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(ptr);
    const struct gv_pool *pool = region != NULL && gv_is_pool_kind(region->kind) ? region->pool : NULL;
    if (pool != NULL && pool->handle_types != CU_MEM_HANDLE_TYPE_NONE) {
        uint64_t offset;
        struct gv_physical *physical = gv_heap_backing(region->segment, &offset);
        result = gv_physical_share(physical);
        if (result == CUDA_SUCCESS)
            result = gv_ipc_name(&handle, GV_IPC_POOL, physical->fd);
        handle.device = (uint32_t)region->device;
        handle.offset = offset;
        handle.bytes = region->bytes;
        handle.id = pool->id;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS) {
        memset(shareData_out, 0, sizeof *shareData_out);
        memcpy(shareData_out, &handle, sizeof handle);
    }
    return result;
}

GV_EXPORT CUresult cuMemPoolImportPointer(CUdeviceptr *ptr_out, CUmemoryPool handle, CUmemPoolPtrExportData *shareData)
{
    GV_ENTER();
    struct gv_pool *pool = gv_pool_of(handle);
    if (ptr_out == NULL || shareData == NULL || pool == NULL || !pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_ipc_handle name;
    memcpy(&name, shareData, sizeof name);
    if (name.what != GV_IPC_POOL || name.id != pool->id || name.pid != pool->exporter ||
        name.start_time != pool->exporter_start)
        return CUDA_ERROR_INVALID_VALUE; /* data of another pool */
    int fd;
    GV_TRY(gv_ipc_open(&name, GV_IPC_POOL, &fd));
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region;
    const CUresult result = gv_imported_map(&name, fd, NULL, GV_REGION_POOL_IMPORTED, &region);
    if (result == CUDA_SUCCESS) {
        region->pool = pool;
        pool->allocations++;
        *ptr_out = region->base;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    close(fd);
    return result;
}

/* Under the lock. */
void gv_pool_imported_free(struct gv_region *region)
{
    struct gv_pool *pool = region->pool;
    pool->allocations--;
    gv_imported_free(region);
    gv_pools_want_trim(); /* a destroyed pool may end now */
}

struct free_operation {
    struct gv_operation operation;
    CUdeviceptr address;
    uint64_t id;
};

static CUresult run_free(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    const struct free_operation *self = (const struct free_operation *)operation;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(self->address);
    if (region != NULL && region->id == self->id)
        gv_pool_imported_free(region);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

static const struct gv_operation_kind free_kind = {.node = GV_NO_NODE, .always = true, .run = run_free};

CUresult gv_pool_free_imported(CUdeviceptr address, struct gv_stream *stream)
{
    struct free_operation *operation = malloc(sizeof *operation);
    if (operation == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    operation->operation.kind = &free_kind;
    operation->address = address;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(address);
    const bool known =
        region != NULL && region->base == address && region->kind == GV_REGION_POOL_IMPORTED && region->flags == 0;
    if (known) {
        region->flags = 1; /* freed once */
        operation->id = region->id;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (!known) {
        free(operation);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return gv_stream_submit(stream, &operation->operation);
}
