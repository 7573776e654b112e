/* SPDX-License-Identifier: Apache-2.0 */
#include "failpoints.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

enum action { NONE, FAIL, KILL, STOP, STALL };

static const char *const names[GV_FAIL_COUNT] = {
#define NAME(name, text) text,
    GV_FAILPOINTS(NAME)
#undef NAME
};

static struct {
    enum action action;
    long milliseconds, at, seen;
} points[GV_FAIL_COUNT];
static int any;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static enum gv_failpoint point_named(const char *text, size_t length)
{
    enum gv_failpoint point = 0;
    while (point < GV_FAIL_COUNT && (strncmp(names[point], text, length) != 0 || names[point][length] != '\0'))
        point++;
    return point;
}

static void read_one(const char *text)
{
    const char *const colon = strchr(text, ':');
    if (colon == NULL)
        return;
    const enum gv_failpoint point = point_named(text, (size_t)(colon - text));
    if (point == GV_FAIL_COUNT)
        return;
    const char *const action = colon + 1;
    const enum action wanted = strncmp(action, "fail", 4) == 0     ? FAIL
                               : strncmp(action, "kill", 4) == 0   ? KILL
                               : strncmp(action, "stop", 4) == 0   ? STOP
                               : strncmp(action, "stall=", 6) == 0 ? STALL
                                                                   : NONE;
    const char *const count = strchr(action, ':');
    points[point].action = wanted;
    points[point].milliseconds = wanted == STALL ? strtol(action + 6, NULL, 10) : 0;
    points[point].at = count != NULL ? strtol(count + 1, NULL, 10) : 1;
    any = 1;
}

static void read_points(void)
{
    const char *text = getenv("GPUVIRT_FAILPOINTS");
    char *const copy = text == NULL ? NULL : strdup(text);
    if (copy == NULL)
        return;
    char *rest = NULL;
    for (char *one = strtok_r(copy, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest))
        read_one(one);
    free(copy);
}

int gv_failpoint(enum gv_failpoint point)
{
    pthread_once(&once, read_points);
    if (!any || points[point].action == NONE || ++points[point].seen != points[point].at)
        return 0;
    gv_log("failpoint %s", names[point]);
    switch (points[point].action) {
    case KILL:
        kill(getpid(), SIGKILL);
        return 0;
    case STOP:
        kill(getpid(), SIGSTOP);
        return 0;
    case STALL:
        nanosleep(&(struct timespec){points[point].milliseconds / 1000, points[point].milliseconds % 1000 * 1000000},
                  NULL);
        return 0;
    default:
        errno = ENOMEM;
        return 1;
    }
}
