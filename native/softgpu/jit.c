/* SPDX-License-Identifier: Apache-2.0
 *
 * PTX -> C -> shared object, with a cache on disk.
 *
 * The cache is private to the user (its files are executed): a folder of mode 0700 that we own. A file is named by the hash of
 * all that it follows from: PTX, translator and runtime headers (their contents), compiler (path, size, time), flags, CPU,
 * kernel ABI. New files are written under a unique name and renamed, so nobody reads half a file; a lock file per key has one
 * process compile while others wait (jit_lock.c).
 */
#include "jit_lock.h"
#include "jit_places.h"
#include "module.h"
#include "process.h"
#include "sha256.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const compiler_flags[] = {
    "-std=gnu11",
    "-O2",
    "-march=native",
#ifdef __x86_64__
    "-mprefer-vector-width=512", /* loops over 32 lanes (kernel_lockstep.h), short and without a scalar rest */
#endif
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-w",
};
enum { FLAGS = sizeof compiler_flags / sizeof *compiler_flags };

static pthread_mutex_t compiling = PTHREAD_MUTEX_INITIALIZER; /* one compiler per process */

/* -march=native: a file of another CPU may crash here. */
static void add_cpu(struct gv_sha256 *hash)
{
    unsigned words[4 * 8];
    memset(words, 0, sizeof words);
#ifdef __x86_64__
    __get_cpuid_count(0, 0, &words[0], &words[1], &words[2], &words[3]);
    __get_cpuid_count(1, 0, &words[4], &words[5], &words[6], &words[7]);
    words[5] &= 0x0000ffffu; /* the number of the core that we run on */
    __get_cpuid_count(7, 0, &words[8], &words[9], &words[10], &words[11]);
    __get_cpuid_count(7, 1, &words[12], &words[13], &words[14], &words[15]);
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid_count(0x80000002u + i, 0, &words[16 + 4 * i], &words[17 + 4 * i], &words[18 + 4 * i],
                          &words[19 + 4 * i]);
#else
    const unsigned long features[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
    memcpy(words, features, sizeof features);
#endif
    words[6] &= ~(1u << 27); /* OSXSAVE differs between threads of a process under some tracers */
    gv_sha256_add_field(hash, words, sizeof words);
}

static void make_key(const struct gv_jit_places *places, const char *const *texts, size_t count, char key[65])
{
    const uint32_t abi = GV_KERNEL_ABI;
    struct gv_sha256 hash;
    gv_sha256_start(&hash);
    gv_sha256_add_field(&hash, &abi, sizeof abi);
    gv_sha256_add_field(&hash, places->identity, strlen(places->identity));
    for (int i = 0; i < FLAGS; i++)
        gv_sha256_add_field(&hash, compiler_flags[i], strlen(compiler_flags[i]));
    add_cpu(&hash);
    for (size_t i = 0; i < count; i++)
        gv_sha256_add_field(&hash, texts[i], strlen(texts[i]));
    gv_sha256_end(&hash, key);
}

/* NULL when it is not there, not ours, or broken. */
/* A file that was cut short (a full disk, a copy) would end the process when dlopen touches what is missing. */
static bool is_whole(int fd, off_t bytes)
{
    Elf64_Ehdr header;
    return pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header &&
           memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && /* the section headers are the end of the file */
           header.e_shoff <= (uint64_t)bytes &&
           (uint64_t)header.e_shnum * header.e_shentsize <= (uint64_t)bytes - header.e_shoff;
}

static void *open_cached(const char *path)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    const bool good = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid() &&
                      (status.st_mode & 022) == 0 && is_whole(fd, status.st_size);
    close(fd);
    void *object = good ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (good && object == NULL)
        gv_log_detail("%s: %s", path, dlerror());
    return object;
}

static bool write_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    size_t length = strlen(text);
    bool done = true;
    while (length > 0 && done) {
        const ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        done = written > 0;
        text += done ? written : 0;
        length -= done ? (size_t)written : 0;
    }
    return close(fd) == 0 && done;
}

static bool is_there(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && status.st_size > 0;
}

static void first_line(const char *text, char *line, size_t room)
{
    const size_t length = strcspn(text, "\n");
    snprintf(line, room, "%.*s", (int)(length < room ? length : room - 1), text);
}

/* Runs one step that makes `product`. */
static CUresult step(const char *const *arguments, const char *product, const char *what, const char *variable,
                     CUresult refused, struct gv_jit_log *log)
{
    char output[8192] = "";
    int status = 0;
    switch (gv_process_run(arguments, output, sizeof output, &status)) {
    case GV_PROCESS_NOT_FOUND:
        snprintf(log->error, sizeof log->error, "cannot start the %s '%s'; install it or set %s", what, arguments[0],
                 variable);
        gv_log_error("%s", log->error);
        return CUDA_ERROR_JIT_COMPILER_NOT_FOUND;
    case GV_PROCESS_FAILED:
        snprintf(log->error, sizeof log->error, "cannot start the %s '%s': %s", what, arguments[0], strerror(errno));
        gv_log_error("%s", log->error);
        return CUDA_ERROR_OPERATING_SYSTEM;
    case GV_PROCESS_ENDED:
        break;
    }
    /* Somebody else took the exit code: the product tells (both steps remove or never make it when they fail). */
    if ((status == 0 || status == -2) && is_there(product))
        return CUDA_SUCCESS;
    if (status == -1) { /* for want of memory, say */
        snprintf(log->error, sizeof log->error, "the %s '%s' was killed by a signal", what, arguments[0]);
        gv_log_error("%s", log->error);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    char line[512];
    if (refused == CUDA_ERROR_INVALID_PTX && status != 2 && status != -2) { /* it broke down: its last line says why */
        char *last = output + strlen(output);
        while (last > output && (last[-1] == '\n' || *last == '\0' || *last == '\n'))
            last--;
        while (last > output && last[-1] != '\n')
            last--;
        first_line(last, line, sizeof line);
    } else {
        first_line(output, line, sizeof line);
    }
    if (line[0] != '\0')
        snprintf(log->error, sizeof log->error, "%s: %s", what, line);
    else
        snprintf(log->error, sizeof log->error, "the %s '%s' failed without a word (exit code %d); set %s to another",
                 what, arguments[0], status, variable);
    gv_log_error("%s", log->error);
    return refused;
}

struct work {
    char base[PATH_MAX + 32]; /* unique, in the cache */
    size_t count;
    char c[PATH_MAX + 48], so[PATH_MAX + 48];
};

static void input_path(const struct work *work, size_t i, char path[PATH_MAX + 64])
{
    snprintf(path, PATH_MAX + 64, "%s.%zu.ptx", work->base, i);
}

static CUresult translate(const struct gv_jit_places *places, struct work *work, const char *const *texts,
                          struct gv_jit_log *log)
{
    char (*inputs)[PATH_MAX + 64] = malloc(work->count * sizeof *inputs);
    const char **arguments = calloc(work->count + 8, sizeof *arguments);
    CUresult result = inputs != NULL && arguments != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    size_t used = 0;
    if (result == CUDA_SUCCESS) {
        arguments[used++] = places->python;
        arguments[used++] = "-E"; /* the program's PYTHON* variables are not for us */
        arguments[used++] = "-s";
        arguments[used++] = places->translator;
    }
    for (size_t i = 0; i < work->count && result == CUDA_SUCCESS; i++) {
        input_path(work, i, inputs[i]);
        if (!write_text(inputs[i], texts[i])) {
            snprintf(log->error, sizeof log->error, "cannot write %.900s: %s", inputs[i], strerror(errno));
            gv_log_error("%s", log->error);
            result = CUDA_ERROR_OPERATING_SYSTEM;
        }
        arguments[used++] = inputs[i];
    }
    if (result == CUDA_SUCCESS) {
        arguments[used++] = "-o";
        arguments[used++] = work->c;
        result = step(arguments, work->c, "PTX translator", "GPUVIRT_SOFTGPU_PYTHON", CUDA_ERROR_INVALID_PTX, log);
    }
    free(inputs);
    free(arguments);
    return result;
}

static CUresult compile(const struct gv_jit_places *places, struct work *work, struct gv_jit_log *log)
{
    char include[PATH_MAX + 2];
    const char *arguments[FLAGS + 8];
    size_t used = 0;
    snprintf(include, sizeof include, "-I%s", places->include);
    arguments[used++] = places->compiler;
    for (int i = 0; i < FLAGS; i++)
        arguments[used++] = compiler_flags[i];
    arguments[used++] = include;
    arguments[used++] = "-o";
    arguments[used++] = work->so;
    arguments[used++] = work->c;
    arguments[used++] = "-lm";
    arguments[used] = NULL;
    return step(arguments, work->so, "C compiler", "GPUVIRT_SOFTGPU_CC", CUDA_ERROR_INVALID_PTX, log);
}

static CUresult build(const struct gv_jit_places *places, const char *path, const char *const *texts, size_t count,
                      struct gv_jit_log *log)
{
    static _Atomic unsigned serial;
    struct work *work = malloc(sizeof *work);
    if (work == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    work->count = count;
    snprintf(work->base, sizeof work->base, "%s/new-%d-%u", places->cache, (int)getpid(), atomic_fetch_add(&serial, 1));
    snprintf(work->c, sizeof work->c, "%s.c", work->base);
    snprintf(work->so, sizeof work->so, "%s.so", work->base);
    const uint64_t start = gv_board_now_ns();
    CUresult result = translate(places, work, texts, log);
    const uint64_t translated = gv_board_now_ns();
    if (result == CUDA_SUCCESS)
        result = compile(places, work, log);
    if (result == CUDA_SUCCESS && (chmod(work->so, 0700) != 0 || rename(work->so, path) != 0)) {
        snprintf(log->error, sizeof log->error, "cannot write %.900s: %s", path, strerror(errno));
        gv_log_error("%s", log->error);
        result = CUDA_ERROR_OPERATING_SYSTEM;
    }
    if (result == CUDA_SUCCESS) {
        snprintf(log->info, sizeof log->info, "translated in %.1f ms, compiled in %.1f ms",
                 (double)(translated - start) / 1e6, (double)(gv_board_now_ns() - translated) / 1e6);
        gv_log_detail("%s: %s", path, log->info);
    }
    if (!places->keep)
        unlink(work->c);
    unlink(work->so);
    for (size_t i = 0; i < count && !places->keep; i++) {
        char input[PATH_MAX + 64];
        input_path(work, i, input);
        unlink(input);
    }
    free(work);
    return result;
}

/* Not in the cache: compiles it, or waits for somebody who does. */
static CUresult make(const struct gv_jit_places *places, const char *path, const char *const *texts, size_t count,
                     struct gv_jit_log *log, void **object)
{
    char lock[PATH_MAX + 96];
    snprintf(lock, sizeof lock, "%s.lock", path);
    const int fd = gv_jit_lock(lock);
    CUresult result = CUDA_SUCCESS;
    *object = open_cached(path);
    if (*object == NULL) {
        gv_jit_clean(places->cache);
        result = build(places, path, texts, count, log);
        if (result == CUDA_SUCCESS && (*object = open_cached(path)) == NULL) {
            snprintf(log->error, sizeof log->error, "cannot load the compiled module %.900s", path);
            gv_log_error("%s", log->error);
            result = CUDA_ERROR_INVALID_IMAGE;
        }
    }
    gv_jit_unlock(lock, fd);
    return result;
}

CUresult gv_jit_open(const char *const *texts, size_t count, struct gv_jit_log *log, char key[65], void **object)
{
    const struct gv_jit_places *places = gv_jit_find_places(log->error, sizeof log->error);
    if (places == NULL)
        return CUDA_ERROR_JIT_COMPILER_NOT_FOUND;
    char path[PATH_MAX + 80];
    make_key(places, texts, count, key);
    snprintf(path, sizeof path, "%s/%s.so", places->cache, key);
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&compiling);
    *object = open_cached(path);
    if (*object == NULL)
        result = make(places, path, texts, count, log, object);
    pthread_mutex_unlock(&compiling);
    return result;
}
