/* SPDX-License-Identifier: Apache-2.0
 *
 * A library whose constructor calls cuInit (or what -DFIRST_CALL says), so the loader's lock is held, at the moment when another
 * thread of the program makes its first call too. With -DPROGRAM: the program.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#ifndef FIRST_CALL
#define FIRST_CALL "cuInit"
#endif

static int call(void)
{
    int (*init)(unsigned int) = (int (*)(unsigned int))dlsym(RTLD_DEFAULT, FIRST_CALL);
    return init == NULL ? -1 : init(0);
}

#ifndef PROGRAM
int constructor_got = -1;
__attribute__((constructor)) static void loading(void)
{
    int *go = dlsym(RTLD_DEFAULT, "program_may_go");
    if (go != NULL)
        __atomic_store_n(go, 1, __ATOMIC_RELEASE);
    usleep(100000); /* the other thread is in the middle of its first call */
    constructor_got = call();
}
#else
__attribute__((visibility("default"))) int program_may_go;
static int (*init)(unsigned int);

static void *other(void *result)
{
    while (!__atomic_load_n(&program_may_go, __ATOMIC_ACQUIRE))
        usleep(100);
    *(int *)result = init(0);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int result = -1;
    alarm(5);
    init = (int (*)(unsigned int))dlsym(RTLD_DEFAULT, FIRST_CALL);
    if (argc != 2 || init == NULL || pthread_create(&thread, NULL, other, &result) != 0)
        return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    int *got = library == NULL ? NULL : dlsym(library, "constructor_got");
    pthread_join(thread, NULL);
    printf("constructor %d thread %d\n", got == NULL ? -1 : *got, result);
    return call() != 0;
}
#endif
