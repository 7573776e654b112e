/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 that does while it is loaded, and inside cuInit, what NVIDIA's has been seen to do: it calls driver functions
 * by the names that the whole program sees (which are the shim's), on this thread and on one of its own that it waits for,
 * and through its own PLT. It takes its time. What it got is in `seen_*`.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

int seen_loads, seen_inits, seen_copies;
int seen_while_loading = -1, seen_on_a_thread = -1, seen_looking_up = -1, seen_coming_back = -1, seen_own_copy = -1;

static int call_by_name(const char *name)
{
    int (*function)(void *, void *) = (int (*)(void *, void *))dlsym(dlopen(NULL, RTLD_NOW), name);
    return function == NULL ? -2 : function(NULL, NULL);
}

static int (*whole_programs)(void *);
static int (*look_up)(const char *, void **, int, unsigned long long, int *);

static void *call_on_a_thread(void *unused)
{
    void *function = NULL;
    if (look_up != NULL)
        seen_looking_up = look_up("cuInit", &function, 12000, 0, NULL);
    seen_on_a_thread = whole_programs(NULL);
    return unused;
}

__attribute__((constructor)) static void loading(void)
{
    pthread_t thread;
    seen_loads++;
    seen_while_loading = call_by_name("cuGetExportTable");
    whole_programs = (int (*)(void *))dlsym(dlopen(NULL, RTLD_NOW), "cuDeviceGetCount");
    look_up = (int (*)(const char *, void **, int, unsigned long long, int *))dlsym(dlopen(NULL, RTLD_NOW),
                                                                                    "cuGetProcAddress_v2");
    if (whole_programs != NULL && pthread_create(&thread, NULL, call_on_a_thread, NULL) == 0)
        pthread_join(thread, NULL);
    usleep(100000);
}

int cuGetExportTable(void *table, void *id) { return table == NULL && id == NULL ? 1 : 0; }
int cuDeviceGetCount(int *count) { return count == NULL ? 0 : 1; }

int cuMemcpy2DUnaligned_v2(const void *copy)
{
    seen_copies++;
    return copy == NULL ? 0 : 1;
}

static void *init_on_a_thread(void *result)
{
    *(int *)result = call_by_name("cuInit");
    return NULL;
}

static int init_on_threads(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int results[THREADS], failed = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, init_on_a_thread, &results[i]);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        failed += results[i] != 0;
    }
    return failed;
}

int cuInit(unsigned int flags)
{
    static int inside;
    __atomic_fetch_add(&seen_inits, 1, __ATOMIC_RELAXED);
    if (flags == 77 && !__atomic_exchange_n(&inside, 1, __ATOMIC_RELAXED)) {
        seen_coming_back = call_by_name("cuInit") + init_on_threads();
        seen_own_copy = cuMemcpy2DUnaligned_v2(NULL); /* through the PLT: must come to the function above */
    }
    return 0;
}
