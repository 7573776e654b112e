/* SPDX-License-Identifier: Apache-2.0 */
#include "environment.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static struct gv_environment environment;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void copy(char *target, size_t size, const char *name)
{
    const char *value = getenv(name);
    if (value == NULL)
        return;
    if (strlen(value) >= size) {
        gv_log("the environment variable %s is longer than %zu characters and is ignored", name, size - 1);
        return;
    }
    strcpy(target, value);
}

static void read_environment(void)
{
    copy(environment.driver, sizeof environment.driver, "GPUVIRT_DRIVER");
    copy(environment.nvml, sizeof environment.nvml, "GPUVIRT_NVML");
    copy(environment.socket, sizeof environment.socket, "GPUVIRT_SOCKET");
    copy(environment.token, sizeof environment.token, "GPUVIRT_JOB");
    const char *timeout = getenv("GPUVIRT_ATTACH_TIMEOUT_MS");
    const long milliseconds = timeout == NULL ? 0 : strtol(timeout, NULL, 10);
    environment.attach_timeout_ns = (uint64_t)(milliseconds > 0 ? milliseconds : 15000) * 1000000u;
    const char *flag = getenv("GPUVIRT_NO_DEEPBIND");
    environment.no_deepbind = flag != NULL && flag[0] == '1';
    flag = getenv("GPUVIRT_SHIM_DEBUG");
    environment.debug = flag != NULL && flag[0] == '1';
}

const struct gv_environment *gv_environment(void)
{
    pthread_once(&once, read_environment);
    return &environment;
}
