/* SPDX-License-Identifier: Apache-2.0
 *
 *     opening THREADS FLAGS     so many threads call cuInit(FLAGS) at once, as the first call of all
 *
 * Prints what each got and what the driver of GPUVIRT_DRIVER (opening_driver.c) saw, as NAME=VALUE lines. Ends by SIGALRM
 * where something waits for ever.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int (*init)(unsigned int);
static unsigned int flags;
static pthread_barrier_t all_there;

static void *first_call(void *result)
{
    pthread_barrier_wait(&all_there);
    *(int *)result = init(flags);
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const seen[] = {"seen_loads",         "seen_looking_up",  "seen_inits",       "seen_copies",
                                       "seen_while_loading", "seen_on_a_thread", "seen_coming_back", "seen_own_copy"};
    enum { MOST = 64 };
    pthread_t threads[MOST];
    int results[MOST] = {0}, failed = 0;
    if (argc != 3)
        return 2;
    const int count = atoi(argv[1]) < MOST ? atoi(argv[1]) : MOST;
    flags = (unsigned int)atoi(argv[2]);
    alarm(5);
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    init = (int (*)(unsigned int))dlsym(library, "cuInit");
    pthread_barrier_init(&all_there, NULL, (unsigned int)count);
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, first_call, &results[i]);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        failed += results[i] != 0;
    }
    printf("failed=%d\nfirst=%d\n", failed, results[0]);
    const char *path = getenv("GPUVIRT_DRIVER");
    void *driver = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    for (size_t i = 0; driver != NULL && i < sizeof seen / sizeof *seen; i++) {
        const int *value = dlsym(driver, seen[i]);
        if (value != NULL)
            printf("%s=%d\n", seen[i], *value);
    }
    return 0;
}
