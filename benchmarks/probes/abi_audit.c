/* SPDX-License-Identifier: Apache-2.0
 *
 *     abi_audit DRIVER SYMBOLS < QUESTIONS
 *
 * Asks the driver that a program finds as libcuda.so.1 for functions, and says whose function each answer is: its pointer is
 * compared with every symbol (a line each in the file SYMBOLS) of the library found and of the library DRIVER behind it.
 *
 * A question is a line WAY NAME VERSION FLAGS POINTER STATUS. WAY: v1, v2 (cuGetProcAddress with four and five arguments),
 * handle or default (dlsym of an ABI name). NAME: "(null)" and "(empty)" are those. POINTER, STATUS: 0 hands in NULL.
 * An answer is a line RESULT OWNER NAME STATUS; what was not written to is "unchanged".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*ask_v1)(const char *, void **, int, unsigned long long);
typedef int (*ask_v2)(const char *, void **, int, unsigned long long, int *);

enum { SYMBOLS_MAX = 4096, NAME_MAX_BYTES = 128, UNTOUCHED = 0x5a5a };

struct known {
    void *address;
    const char *owner;
    char name[NAME_MAX_BYTES];
};
static struct known known[2 * SYMBOLS_MAX];
static size_t known_count;

static int by_address(const void *left, const void *right)
{
    const char *a = ((const struct known *)left)->address, *b = ((const struct known *)right)->address;
    return (a > b) - (a < b);
}

static void learn(void *library, const char *owner, const char *name)
{
    void *address = dlsym(library, name), *init = dlsym(library, "cuInit");
    Dl_info of_symbol, of_library;
    if (address == NULL || known_count == sizeof known / sizeof *known)
        return;
    /* dlsym also looks into what the library depends on: only what lies in that very file counts. */
    if (!dladdr(address, &of_symbol) || !dladdr(init, &of_library) || of_symbol.dli_fbase != of_library.dli_fbase)
        return;
    known[known_count].address = address;
    known[known_count].owner = owner;
    snprintf(known[known_count++].name, NAME_MAX_BYTES, "%s", name);
}

static void print_owner(void *pointer)
{
    struct known key = {.address = pointer};
    if (pointer == (void *)UNTOUCHED) {
        printf("unchanged -");
    } else if (pointer == NULL) {
        printf("nobody -");
    } else {
        const struct known *found = bsearch(&key, known, known_count, sizeof *known, by_address);
        printf("%s %s", found != NULL ? found->owner : "somebody", found != NULL ? found->name : "-");
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    void *found = dlopen("libcuda.so.1", RTLD_NOW);
    if (found == NULL) {
        fprintf(stderr, "no libcuda.so.1: %s\n", dlerror());
        return 1;
    }
    const ask_v1 v1 = (ask_v1)dlsym(found, "cuGetProcAddress");
    const ask_v2 v2 = (ask_v2)dlsym(found, "cuGetProcAddress_v2");
    int (*driver_version)(int *) = (int (*)(int *))dlsym(found, "cuDriverGetVersion");
    int version = 0;
    if (v1 == NULL || v2 == NULL || driver_version == NULL || driver_version(&version) != 0)
        return 1;
    void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD); /* the shim has opened it by now */
    FILE *symbols = fopen(argv[2], "r");
    char name[NAME_MAX_BYTES];
    if (driver == NULL || driver == found || symbols == NULL) {
        fprintf(stderr, "the library found is not before %s\n", argv[1]);
        return 1;
    }
    while (fscanf(symbols, "%127s", name) == 1) {
        learn(found, "shim", name);
        learn(driver, "driver", name);
    }
    fclose(symbols);
    qsort(known, known_count, sizeof *known, by_address);

    char way[16];
    int asked, with_pointer, with_status;
    unsigned long long flags;
    printf("version %d\n", version);
    while (scanf("%15s %127s %d %llu %d %d", way, name, &asked, &flags, &with_pointer, &with_status) == 6) {
        const char *const given = strcmp(name, "(null)") == 0 ? NULL : strcmp(name, "(empty)") == 0 ? "" : name;
        void *pointer = (void *)UNTOUCHED;
        int status = UNTOUCHED, result = 0;
        if (strcmp(way, "v1") == 0)
            result = v1(given, with_pointer ? &pointer : NULL, asked, flags);
        else if (strcmp(way, "v2") == 0)
            result = v2(given, with_pointer ? &pointer : NULL, asked, flags, with_status ? &status : NULL);
        else
            pointer = dlsym(strcmp(way, "default") == 0 ? RTLD_DEFAULT : found, name);
        printf("%d ", result);
        print_owner(pointer);
        if (status == UNTOUCHED)
            printf(" unchanged\n");
        else
            printf(" %d\n", status);
    }
    return 0;
}
