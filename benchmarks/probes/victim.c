/* SPDX-License-Identifier: Apache-2.0
 *
 * A process to be killed at any moment.
 *
 *     victim storm SEED   threads that allocate, launch, copy, map, export and import at random, for ever
 *     victim hold         a kernel that has the engine and does not give it away; says "ready"
 *     victim ask          for each line of input a short kernel; prints when it was done (monotonic ns)
 *     victim hello        prints the device's free and total bytes
 */
#include "driver.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct location {
    int type, id;
};
struct properties { /* CUmemAllocationProp */
    int type, handle_types;
    struct location location;
    void *win32;
    unsigned char flags[8];
};
struct access {
    struct location location;
    int flags;
};

#define MORE_CALLS(CALL)                                                                                               \
    CALL(release, cuMemFree_v2, (device_address at))                                                                   \
    CALL(copy_in, cuMemcpyHtoD_v2, (device_address to, const void *from, size_t bytes))                                \
    CALL(memory_info, cuMemGetInfo_v2, (size_t *unused, size_t *total))                                                \
    CALL(reserve, cuMemAddressReserve,                                                                                 \
         (device_address * at, size_t size, size_t alignment, device_address hint, unsigned long long flags))          \
    CALL(unreserve, cuMemAddressFree, (device_address at, size_t size))                                                \
    CALL(create, cuMemCreate,                                                                                          \
         (unsigned long long *handle, size_t size, const struct properties *properties, unsigned long long flags))     \
    CALL(let_go, cuMemRelease, (unsigned long long handle))                                                            \
    CALL(map, cuMemMap,                                                                                                \
         (device_address at, size_t size, size_t offset, unsigned long long handle, unsigned long long flags))         \
    CALL(unmap, cuMemUnmap, (device_address at, size_t size))                                                          \
    CALL(set_access, cuMemSetAccess, (device_address at, size_t size, const struct access *access, size_t count))      \
    CALL(export_handle, cuMemExportToShareableHandle,                                                                  \
         (void *fd, unsigned long long handle, int type, unsigned long long flags))                                    \
    CALL(import_handle, cuMemImportFromShareableHandle, (unsigned long long *handle, void *fd, int type))

#define DECLARE(name, symbol, parameters) static int(*name) parameters;
MORE_CALLS(DECLARE)
#undef DECLARE

enum { MIB = 1 << 20, THREADS = 3, EXPORTABLE = 1, DEVICE = 1, PINNED = 1, READ_WRITE = 3 };

static const char kernel[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry spin(.param .u64 time) {\n"
    " .reg .b64 %s, %n, %l; .reg .pred %p;\n"
    " ld.param.u64 %l, [time]; mov.u64 %s, %globaltimer;\n"
    "again: mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again; ret; }\n";

static void *context, *function;

static void open_all(void)
{
    void *const module = open_driver(kernel);
    void *const library = dlopen("libcuda.so.1", RTLD_NOW);
#define FIND(name, symbol, parameters) *(void **)&name = dlsym(library, #symbol);
    MORE_CALLS(FIND)
#undef FIND
    int device;
    check(function_get(&function, module, "spin"), "cuModuleGetFunction");
    check(device_get(&device, 0), "cuDeviceGet");
    check(context_retain(&context, device), "cuDevicePrimaryCtxRetain");
}

static void run_kernel(void *stream, uint64_t block_ns, unsigned blocks)
{
    void *parameters[] = {&block_ns};
    check(launch(function, blocks, 1, 1, 1, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
}

/* Memory by handle: made, mapped, exported, imported again, half of the time not cleaned up before the next round. */
static void by_handle(unsigned *seed)
{
    static const struct properties properties = {PINNED, EXPORTABLE, {DEVICE, 0}, NULL, {0}};
    static const struct access access = {{DEVICE, 0}, READ_WRITE};
    unsigned long long handle, again = 0;
    device_address at;
    int fd = -1;
    if (create(&handle, 2 * MIB, &properties, 0) != 0)
        return;
    if (rand_r(seed) % 2 == 0 && export_handle(&fd, handle, EXPORTABLE, 0) == 0 &&
        import_handle(&again, (void *)(intptr_t)fd, EXPORTABLE) == 0)
        let_go(again);
    if (fd >= 0)
        close(fd);
    if (reserve(&at, 2 * MIB, 0, 0, 0) == 0) {
        if (map(at, 2 * MIB, 0, handle, 0) == 0) {
            set_access(at, 2 * MIB, &access, 1);
            *(volatile char *)at = 1;
            unmap(at, 2 * MIB);
        }
        unreserve(at, 2 * MIB);
    }
    let_go(handle);
}

static void *storm(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    static char buffer[THREADS][256 * 1024];
    char *const own = buffer[seed % THREADS];
    void *stream;
    check(context_set(context), "cuCtxSetCurrent");
    check(stream_create(&stream, 1), "cuStreamCreate");
    for (;;) {
        device_address at = 0;
        const size_t bytes = (size_t)(1 + rand_r(&seed) % 8) * MIB;
        switch (rand_r(&seed) % 5) {
        case 0: /* the board's lock, again and again */
            for (int i = 0; i < 50; i++)
                if (allocate(&at, bytes) == 0)
                    release(at);
            break;
        case 1:
            run_kernel(stream, 1000 + (uint64_t)(rand_r(&seed) % 500000), 1 + (unsigned)rand_r(&seed) % 8);
            break;
        case 2:
            run_kernel(stream, 10000, 4);
            stream_wait(stream);
            break;
        case 3:
            if (allocate(&at, bytes) == 0) {
                copy_in(at, own, sizeof buffer[0]);
                copy_out(own, at, sizeof buffer[0]);
                release(at);
            }
            break;
        default:
            by_handle(&seed);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *const mode = argc > 1 ? argv[1] : "";
    char line[64];
    open_all();
    if (strcmp(mode, "storm") == 0) {
        const unsigned seed = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
        pthread_t thread;
        for (unsigned i = 0; i < THREADS; i++)
            pthread_create(&thread, NULL, storm, (void *)(uintptr_t)(seed * THREADS + i));
        puts("ready");
        fflush(stdout);
        pthread_join(thread, NULL);
    } else if (strcmp(mode, "hold") == 0) {
        run_kernel(NULL, 10000000000ull, 1000);
        usleep(2000);
        puts("ready");
        fflush(stdout);
        stream_wait(NULL);
    } else if (strcmp(mode, "ask") == 0) {
        puts("ready");
        fflush(stdout);
        while (fgets(line, sizeof line, stdin) != NULL) {
            run_kernel(NULL, 10000, 1);
            check(stream_wait(NULL), "cuStreamSynchronize");
            printf("%llu\n", (unsigned long long)now_ns());
            fflush(stdout);
        }
    } else if (strcmp(mode, "hello") == 0) {
        size_t unused, total;
        check(memory_info(&unused, &total), "cuMemGetInfo");
        printf("%zu %zu\n", unused, total);
    } else {
        return 2;
    }
    return 0;
}
