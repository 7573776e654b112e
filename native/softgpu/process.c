/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The program's environment, by way of the program: an executable at a fixed address has a copy of `environ` of its own, and
 * a driver that was opened with RTLD_DEEPBIND (as gpuvirt's shim does) would see libc's, which nobody sets then.
 */
static char **program_environment(void)
{
    static char *nothing[] = {NULL};
    void *program = dlopen(NULL, RTLD_NOW);
    char ***variable = program == NULL ? NULL : (char ***)dlsym(program, "environ");
    char **environment = variable == NULL ? NULL : *variable;
    if (program != NULL)
        dlclose(program);
    return environment == NULL ? nothing : environment;
}

static bool is_hidden(const char *variable)
{
    return strncmp(variable, "LD_PRELOAD=", 11) == 0 || strncmp(variable, "LD_AUDIT=", 9) == 0 ||
           strncmp(variable, "GPUVIRT_", 8) == 0;
}

static char **clean_environment(void)
{
    char **const environment = program_environment();
    size_t count = 0, kept = 0;
    while (environment[count] != NULL)
        count++;
    char **clean = calloc(count + 1, sizeof *clean);
    if (clean != NULL)
        for (size_t i = 0; i < count; i++)
            if (!is_hidden(environment[i]))
                clean[kept++] = environment[i];
    return clean;
}

static void read_all(int fd, char *output, size_t room)
{
    size_t filled = 0;
    char rest[512];
    for (;;) {
        const bool full = filled + 1 >= room; /* go on reading, so that the child never blocks */
        const ssize_t got = full ? read(fd, rest, sizeof rest) : read(fd, output + filled, room - filled - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        if (!full)
            filled += (size_t)got;
    }
    output[filled] = '\0';
}

static int collect(pid_t pid)
{
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -2; /* SIGCHLD ignored, or a handler of the program waits for all children */
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

enum gv_process_result gv_process_run(const char *const *arguments, char *output, size_t room, int *status)
{
    int pipe_ends[2];
    char **environment = clean_environment();
    if (environment == NULL || pipe2(pipe_ends, O_CLOEXEC) != 0) {
        free(environment);
        return GV_PROCESS_FAILED;
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, pipe_ends[1], STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes,
                                  &all); /* a program that ignores SIGCHLD must not have the compiler do so */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t pid;
    const int error = posix_spawnp(&pid, arguments[0], &files, &attributes, (char *const *)arguments, environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    free(environment);
    close(pipe_ends[1]);
    if (error == 0) {
        read_all(pipe_ends[0], output, room);
        *status = collect(pid);
    }
    close(pipe_ends[0]);
    errno = error;
    return error == 0                           ? GV_PROCESS_ENDED
           : error == ENOENT || error == EACCES ? GV_PROCESS_NOT_FOUND
                                                : GV_PROCESS_FAILED;
}
