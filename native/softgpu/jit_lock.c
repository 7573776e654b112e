/* SPDX-License-Identifier: Apache-2.0
 *
 * A record lock (fcntl), not flock(): it belongs to the process alone. A child that the program forks while we compile does
 * not inherit it, so when we are killed it is free at once, whoever else lives on.
 *
 * The holder removes the file when it is done. Who then gets the lock of a file that is gone starts again.
 */
#include "jit_lock.h"
#include "board.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 60, SHORTEST_NAP_US = 500, LONGEST_NAP_US = 20000, STALE_S = 600 };

static bool is_current(const char *path, int fd)
{
    struct stat named, held;
    return fstat(fd, &held) == 0 && lstat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

int gv_jit_lock(const char *path)
{
    const uint64_t deadline = gv_board_now_ns() + PATIENCE_S * 1000000000ull;
    long nap_us = SHORTEST_NAP_US;
    for (;;) {
        const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -1;
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int failed;
        while ((failed = fcntl(fd, F_SETLK, &whole)) != 0 && (errno == EAGAIN || errno == EACCES || errno == EINTR) &&
               gv_board_now_ns() < deadline) {
            const struct timespec nap = {.tv_nsec = nap_us * 1000};
            nanosleep(&nap, NULL);
            nap_us = nap_us * 2 < LONGEST_NAP_US ? nap_us * 2 : LONGEST_NAP_US;
        }
        if (failed == 0 && is_current(path, fd))
            return fd;
        close(fd);
        if (failed != 0) {
            gv_log_detail("%s: compiling without it: %s", path, strerror(errno));
            return -1;
        }
    }
}

void gv_jit_unlock(const char *path, int fd)
{
    if (fd < 0)
        return;
    unlink(path);
    close(fd); /* the lock goes with it */
}

void gv_jit_clean(const char *cache)
{
    DIR *folder = opendir(cache);
    if (folder == NULL)
        return;
    const time_t now = time(NULL);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char *end;
        if (strncmp(entry->d_name, "new-", 4) != 0)
            continue;
        const long pid = strtol(entry->d_name + 4, &end, 10);
        struct stat status;
        /* Old as well as dead: a process of another container has a number that means nothing here. */
        if (*end == '-' && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH &&
            fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && now - status.st_mtime > STALE_S)
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
}
