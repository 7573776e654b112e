/* SPDX-License-Identifier: Apache-2.0 */
#include "usage.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "environment.h"

#define KEEP_NS 100000000ull     /* an answer is used for so long */
#define WAIT_MS 250              /* for an answer */
#define RETRY_NS 1000000000ull   /* after none came */
enum { DEVICES = 32 };           /* handles that are remembered */
enum { SYSTEM_NOT_READY = 802 }; /* CUDA_ERROR_SYSTEM_NOT_READY, in REFUSED */

struct memory {
    nvmlDevice_t device;
    uint64_t asked_ns; /* when `usage` came, or no answer */
    int known;         /* `usage` is an answer of the daemon */
    int silent;        /* the last question had no answer */
    struct gv_usage usage;
};

/* Held for copies only, never during a call or a wait. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct memory memories[DEVICES]; /* under `lock` */
static unsigned next_victim;            /* under `lock` */

/* Another thread of the parent may have been writing it at the fork: the child asks anew. */
void gv_usage_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    for (int i = 0; i < DEVICES; i++)
        memories[i] = (struct memory){0};
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

unsigned long long gv_wall_us(void) { return now_ns(CLOCK_REALTIME) / 1000; }

/* "GPU-9c4ab2ee-...": hexadecimal digits between any dashes. MIG instances (MIG-...) are not gpuvirt's. */
static int parse_uuid(const char *text, uint8_t uuid[GV_UUID_BYTES])
{
    if (strncmp(text, "GPU-", 4) != 0)
        return -1;
    int digits = 0;
    memset(uuid, 0, GV_UUID_BYTES);
    for (text += 4; *text != '\0' && digits < 2 * GV_UUID_BYTES; text++) {
        if (*text == '-')
            continue;
        if (!isxdigit((unsigned char)*text))
            return -1;
        const int value = isdigit((unsigned char)*text) ? *text - '0' : tolower((unsigned char)*text) - 'a' + 10;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | value);
        digits++;
    }
    return digits == 2 * GV_UUID_BYTES ? 0 : -1;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_usec = WAIT_MS * 1000};
    memcpy(address.sun_path, path, strlen(path)); /* environment.c has checked its length */
    const int handle = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (handle < 0)
        return -1;
    setsockopt(handle, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* of a full backlog, too */
    if (connect(handle, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(handle);
        return -1;
    }
    return handle;
}

/* Waits for a packet until `deadline_ns`. Bytes of it, or -1. */
static ssize_t receive(int handle, void *packet, size_t size, uint64_t deadline_ns)
{
    for (;;) {
        const ssize_t got = recv(handle, packet, size, MSG_DONTWAIT | MSG_TRUNC);
        if (got >= 0 || (errno != EAGAIN && errno != EINTR))
            return got;
        const uint64_t now = now_ns(CLOCK_MONOTONIC);
        struct pollfd entry = {.fd = handle, .events = POLLIN};
        if (now >= deadline_ns || (poll(&entry, 1, (int)((deadline_ns - now) / 1000000) + 1) < 0 && errno != EINTR))
            return -1;
    }
}

enum answer { ANSWER, NO_ANSWER, NOT_OURS };

/* A daemon that has no room for the question (connections_per_user) has not said that the job is none of its own. */
static enum answer refused(const void *packet, ssize_t size)
{
    struct gv_refused refusal;
    if (size != (ssize_t)sizeof refusal)
        return NOT_OURS;
    memcpy(&refusal, packet, sizeof refusal);
    return refusal.code == SYSTEM_NOT_READY ? NO_ANSWER : NOT_OURS;
}

static enum answer ask(const uint8_t uuid[GV_UUID_BYTES], struct gv_usage *usage)
{
    const struct gv_environment *const environment = gv_environment();
    struct gv_query query = {.header = {GV_MESSAGE_MAGIC, GV_PROTOCOL_VERSION, GV_QUERY, sizeof query}};
    memcpy(query.device_uuid, uuid, GV_UUID_BYTES);
    memcpy(query.token, environment->token, sizeof query.token);
    const uint64_t deadline_ns = now_ns(CLOCK_MONOTONIC) + WAIT_MS * 1000000ull;
    const int handle = connect_to(environment->socket);
    if (handle < 0)
        return NO_ANSWER;
    enum answer answer = NO_ANSWER;
    if (send(handle, &query, sizeof query, MSG_NOSIGNAL) == (ssize_t)sizeof query) {
        const ssize_t size = receive(handle, usage, sizeof *usage, deadline_ns);
        if (size >= (ssize_t)sizeof usage->header && usage->header.magic == GV_MESSAGE_MAGIC) {
            if (usage->header.type == GV_USAGE && size == (ssize_t)sizeof *usage && usage->count <= GV_USAGE_PROCESSES)
                answer = ANSWER;
            else if (usage->header.type == GV_REFUSED)
                answer = refused(usage, size);
        }
    }
    close(handle);
    return answer;
}

static struct memory *find(nvmlDevice_t device)
{
    for (int i = 0; i < DEVICES; i++)
        if (memories[i].device == device)
            return &memories[i];
    return NULL;
}

/* 1 or 0 when what is remembered decides, -1 when the daemon must be asked. */
static int remembered(nvmlDevice_t device, struct gv_usage *usage)
{
    const uint64_t now = now_ns(CLOCK_MONOTONIC);
    int result = -1;
    pthread_mutex_lock(&lock);
    const struct memory *const memory = find(device);
    if (memory != NULL && now - memory->asked_ns < (memory->silent ? RETRY_NS : KEEP_NS)) {
        result = memory->known;
        *usage = memory->usage;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int remember(nvmlDevice_t device, enum answer answer, struct gv_usage *usage)
{
    pthread_mutex_lock(&lock);
    struct memory *memory = find(device);
    if (memory == NULL) {
        memory = &memories[next_victim++ % DEVICES];
        *memory = (struct memory){.device = device};
    }
    memory->asked_ns = now_ns(CLOCK_MONOTONIC);
    memory->silent = answer != ANSWER;
    if (answer == ANSWER) {
        memory->known = 1;
        memory->usage = *usage;
    } else if (answer == NOT_OURS) {
        memory->known = 0;
    }
    const int known = memory->known;
    *usage = memory->usage;
    pthread_mutex_unlock(&lock);
    return known;
}

int gv_usage(nvmlDevice_t device, struct gv_usage *usage)
{
    const struct gv_environment *const environment = gv_environment();
    if (environment->token[0] == '\0' || environment->socket[0] == '\0' || device == NULL)
        return 0;
    int known = remembered(device, usage);
    if (known >= 0)
        return known;
    const int saved = errno;
    char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    uint8_t uuid[GV_UUID_BYTES];
    enum answer answer = NOT_OURS;
    if (GV_NVML(nvmlDeviceGetUUID)(device, text, sizeof text) != NVML_SUCCESS)
        return 0;
    if (parse_uuid(text, uuid) == 0)
        answer = ask(uuid, usage);
    known = remember(device, answer, usage);
    errno = saved;
    return known;
}
