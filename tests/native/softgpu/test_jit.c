/* SPDX-License-Identifier: Apache-2.0
 *
 * The JIT as a guest in somebody's process: cache, missing tools, environment, SIGCHLD. Each case is a process of its own.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char cache[256];

static int files_with(const char *end)
{
    DIR *folder = opendir(cache);
    int count = 0;
    CHECK(folder != NULL);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const size_t length = strlen(entry->d_name), tail = strlen(end);
        count += length > tail && strcmp(entry->d_name + length - tail, end) == 0;
    }
    closedir(folder);
    return count;
}

static CUresult load(char *log, size_t room)
{
    CUmodule module;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)room};
    log[0] = '\0';
    primary_context();
    return cuModuleLoadDataEx(&module, kernels, 2, options, values);
}

static char text[1024];

static void cached(void)
{
    OK(load(text, sizeof text));
    CHECK_EQUAL(files_with(".so"), 1);
    CHECK_EQUAL(files_with(".c") + files_with(".ptx"), 0); /* nothing is left behind */
    struct stat status;
    CHECK(stat(cache, &status) == 0 && (status.st_mode & 0777) == 0700);
    setenv("GPUVIRT_SOFTGPU_CC", "/bin/false", 1); /* already looked up in this process: the cache answers */
    OK(load(text, sizeof text));
}

static void from_the_cache(void)
{
    setenv("GPUVIRT_SOFTGPU_PYTHON", "/nowhere/python3", 1); /* is no part of the key, and not needed */
    OK(load(text, sizeof text));
    CHECK_EQUAL(files_with(".so"), 1);
}

static void cut_short(void)
{
    snprintf(text, sizeof text, "for f in %s/*.so; do truncate -s 5000 $f; done", cache);
    CHECK(system(text) == 0);
    OK(load(text, sizeof text));
    CHECK_EQUAL(files_with(".so"), 1);
}

static void no_compiler(void)
{
    setenv("GPUVIRT_SOFTGPU_CC", "no-such-compiler", 1);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, load(text, sizeof text));
    CHECK(strstr(text, "no-such-compiler") != NULL && strstr(text, "GPUVIRT_SOFTGPU_CC") != NULL);
}

static void silent_compiler(void)
{
    setenv("GPUVIRT_SOFTGPU_CC", "/bin/false", 1);
    CHECK(load(text, sizeof text) != CUDA_SUCCESS);
    CHECK(strstr(text, "/bin/false") != NULL && strstr(text, "GPUVIRT_SOFTGPU_CC") != NULL);
}

static void killed_compiler(void)
{
    char compiler[320];
    snprintf(compiler, sizeof compiler, "%s-killed", cache);
    FILE *script = fopen(compiler, "w");
    CHECK(script != NULL);
    fprintf(script, "#!/bin/sh\nkill -9 $$\n");
    CHECK(fclose(script) == 0 && chmod(compiler, 0700) == 0);
    setenv("GPUVIRT_SOFTGPU_CC", compiler, 1);
    EXPECT(CUDA_ERROR_OPERATING_SYSTEM, load(text, sizeof text));
    CHECK(strstr(text, "killed by a signal") != NULL);
}

static void no_python(void)
{
    setenv("GPUVIRT_SOFTGPU_CC", "gcc", 1); /* another key than before, or the cache would answer */
    setenv("GPUVIRT_SOFTGPU_PYTHON", "no-such-python", 1);
    setenv("GPUVIRT_SOFTGPU_CACHE", strcat(cache, "/other"), 1);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, load(text, sizeof text));
    CHECK(strstr(text, "GPUVIRT_SOFTGPU_PYTHON") != NULL);
}

static void no_translator(void)
{
    setenv("GPUVIRT_SOFTGPU_TRANSLATOR", "/nowhere", 1);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, load(text, sizeof text));
    CHECK(strstr(text, "GPUVIRT_SOFTGPU_TRANSLATOR") != NULL);
}

static void open_to_others(void)
{
    strcat(cache, "/open");
    CHECK(mkdir(cache, 0777) == 0 && chmod(cache, 0777) == 0);
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, load(text, sizeof text));
    CHECK(strstr(text, "chmod 700") != NULL);
}

static void of_another_user(void)
{
    strcat(cache, "/given");
    CHECK(mkdir(cache, 0700) == 0);
    if (geteuid() != 0)
        return; /* it takes root to give something away */
    CHECK(chown(cache, 65534, 65534) == 0);
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, load(text, sizeof text));
    CHECK(strstr(text, "belongs to another user") != NULL);
}

/* The folder is one that users do not take from each other. Here a file is in its place. */
static void without_a_home(void)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/gpuvirt-softgpu-cache-%u", (unsigned)geteuid());
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* somebody uses it */
    close(fd);
    unsetenv("HOME");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("GPUVIRT_SOFTGPU_CACHE");
    const CUresult result = load(text, sizeof text);
    unlink(path);
    EXPECT(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, result);
    CHECK(strstr(text, path) != NULL && strstr(text, "Not a directory") != NULL);
}

/* A Python that refuses to start when it sees what is not for it. */
static void write_wary_python(const char *path)
{
    FILE *script = fopen(path, "w");
    CHECK(script != NULL);
    fprintf(script, "#!/bin/sh\n[ -z \"$LD_PRELOAD$GPUVIRT_SOFTGPU_BOARD\" ] || { echo preloaded >&2; exit 2; }\n"
                    "exec python3 \"$@\"\n");
    fclose(script);
    CHECK(chmod(path, 0700) == 0);
}

/* The program ignores SIGCHLD: the kernel collects our children. And it preloads something: they must not see it. */
static void rude_program(void)
{
    signal(SIGCHLD, SIG_IGN);
    setenv("LD_PRELOAD", "/nowhere/preloaded.so", 1); /* ld.so complains on stderr where it is seen */
    strcat(cache, "/rude");
    snprintf(text, sizeof text, "%s-python", cache);
    write_wary_python(text);
    setenv("GPUVIRT_SOFTGPU_PYTHON", text, 1);
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    OK(load(text, sizeof text));
    CHECK_EQUAL(files_with(".so"), 1);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1); /* no child is left */
}

static void two_at_once(void)
{
    strcat(cache, "/both");
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    const pid_t child = fork();
    OK(load(text, sizeof text));
    if (child == 0)
        _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQUAL(files_with(".so"), 1);
}

/* A compiler that counts its runs, and kills who started the first one when told to. */
static void write_counting_compiler(const char *path, bool deadly)
{
    FILE *script = fopen(path, "w");
    CHECK(script != NULL);
    fprintf(script, "#!/bin/sh\necho run >>%s.runs\n", path);
    if (deadly)
        fprintf(script, "mkdir %s.first 2>/dev/null && kill -9 $PPID && exit 1\n", path);
    fprintf(script, "exec cc \"$@\"\n");
    fclose(script);
    CHECK(chmod(path, 0700) == 0);
}

static int lines_of(const char *path)
{
    char line[64];
    int count = 0;
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count++;
    if (file != NULL)
        fclose(file);
    return count;
}

/* Processes that load the same new module at once; returns how many were killed. */
static int crowd(int processes, const char *name, bool deadly)
{
    char compiler[320];
    strcat(cache, name);
    snprintf(compiler, sizeof compiler, "%s-cc", cache);
    write_counting_compiler(compiler, deadly);
    setenv("GPUVIRT_SOFTGPU_CC", compiler, 1);
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            OK(load(text, sizeof text));
            _exit(0);
        }
    int killed = 0;
    for (int status; processes > 0; processes--) {
        CHECK(wait(&status) > 0);
        CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        killed += status != 0;
    }
    CHECK_EQUAL(files_with(".so"), 1);
    CHECK_EQUAL(files_with(".lock"), 0);
    snprintf(text, sizeof text, "%s.runs", compiler);
    return killed;
}

static void compiled_once(void)
{
    CHECK_EQUAL(crowd(12, "/crowd", false), 0);
    CHECK_EQUAL(lines_of(text), 1);
}

static void taken_over(void)
{
    CHECK_EQUAL(crowd(6, "/orphans", true), 1);
    CHECK_EQUAL(lines_of(text), 2);
}

/* Left by a process that is gone; what is young may be another container's. */
static void cleaned(void)
{
    strcat(cache, "/dirty");
    CHECK(mkdir(cache, 0700) == 0);
    const pid_t child = fork();
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, NULL, 0) == child);
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s/new-%d-%d.c", cache, i == 2 ? (int)getpid() : (int)child, i);
        FILE *file = fopen(text, "w");
        CHECK(file != NULL && fclose(file) == 0);
        CHECK(i == 1 || utimensat(AT_FDCWD, text, times, 0) == 0);
    }
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    OK(load(text, sizeof text));
    CHECK_EQUAL(files_with(".c"), 2);
}

int main(void)
{
    static void (*const cases[])(void) = {cached,          from_the_cache,  cut_short,      silent_compiler,
                                          killed_compiler, no_compiler,     no_python,      no_translator,
                                          open_to_others,  of_another_user, without_a_home, rude_program,
                                          two_at_once,     compiled_once,   taken_over,     cleaned};
    use_own_board("64M");
    char folder[] = "/tmp/gpuvirt-test-jit-XXXXXX", command[128];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    setenv("GPUVIRT_SOFTGPU_CACHE", cache, 1);
    int failed = -1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases && failed < 0; i++) {
        int status;
        const pid_t child = fork();
        if (child == 0) {
            cases[i]();
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0)
            failed = (int)i;
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(system(command) == 0);
    if (failed >= 0)
        FAIL("case %d", failed);
    return 0;
}
