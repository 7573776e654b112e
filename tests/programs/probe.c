/* SPDX-License-Identifier: Apache-2.0 */
/* Says what a process is at its first own instruction: everything that a preloaded library could have changed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void descriptors(void)
{
    DIR *const folder = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const int number = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && number != dirfd(folder))
            printf("descriptor %d flags %d mode %x\n", number, fcntl(number, F_GETFD), fcntl(number, F_GETFL));
    }
    closedir(folder);
}

static int count(const char *path)
{
    int entries = 0;
    DIR *const folder = opendir(path);
    while (readdir(folder) != NULL)
        entries++;
    closedir(folder);
    return entries - 2;
}

int main(void)
{
    sigset_t blocked;
    const mode_t mask = umask(0);
    umask(mask);
    printf("umask %03o\n", (unsigned)mask);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0)
            printf("signal %d blocked %d handler %s flags %x\n", number, sigismember(&blocked, number),
                   action.sa_handler == SIG_DFL   ? "default"
                   : action.sa_handler == SIG_IGN ? "ignored"
                                                  : "caught",
                   (unsigned)action.sa_flags);
    }
    descriptors();
    printf("threads %d\n", count("/proc/self/task"));
    for (int limit = 0; limit < RLIM_NLIMITS; limit++) {
        struct rlimit value;
        if (getrlimit((__rlimit_resource_t)limit, &value) == 0)
            printf("limit %d %llu %llu\n", limit, (unsigned long long)value.rlim_cur,
                   (unsigned long long)value.rlim_max);
    }
    printf("rounding %d exceptions %d locale %s nice %d\n", fegetround(), fetestexcept(FE_ALL_EXCEPT),
           setlocale(LC_ALL, NULL), getpriority(PRIO_PROCESS, 0));
    size_t entries = 0;
    while (environ[entries] != NULL)
        entries++;
    qsort(environ, entries, sizeof *environ, by_text);
    for (size_t i = 0; i < entries; i++)
        printf("environ %s\n", environ[i]);
    return 42;
}
