/* SPDX-License-Identifier: Apache-2.0 */
#include "backing.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "gpuvirt/control_block_ops.h"
#include "log.h"

enum { KEPT_MAX = 256, ANSWER_S = 60 }; /* a daemon that is killed hangs up; this is for one that is stopped */

struct kept {
    struct kept *next;
    union gv_packet packet;
    int descriptors[GV_DESCRIPTORS_MAX];
};

static int connection = -1;
static uint32_t last_request;
static struct kept *first, **end = &first;
static unsigned count;

void gv_backing_forget(void)
{
    connection = -1;
    first = NULL; /* descriptors of the parent's packets: closed by nobody, and few */
    end = &first;
    count = 0;
}

void gv_backing_connected(int handle)
{
    union gv_packet packet;
    int descriptors[GV_DESCRIPTORS_MAX];
    while (gv_backing_next(&packet, descriptors))
        gv_close_descriptors(descriptors);
    connection = handle;
}

int gv_backing_any(void) { return first != NULL; }

int gv_backing_next(union gv_packet *packet, int descriptors[GV_DESCRIPTORS_MAX])
{
    struct kept *const oldest = first;
    if (oldest == NULL)
        return 0;
    first = oldest->next;
    if (first == NULL)
        end = &first;
    *packet = oldest->packet;
    memcpy(descriptors, oldest->descriptors, sizeof oldest->descriptors);
    free(oldest);
    count--;
    return 1;
}

static int keep(const union gv_packet *packet, const int descriptors[GV_DESCRIPTORS_MAX])
{
    struct kept *const newest = count < KEPT_MAX ? malloc(sizeof *newest) : NULL;
    if (newest == NULL)
        return ENOMEM;
    newest->next = NULL;
    newest->packet = *packet;
    memcpy(newest->descriptors, descriptors, sizeof newest->descriptors);
    *end = newest;
    end = &newest->next;
    count++;
    return 0;
}

/* The answer to this request; 0, or an errno. */
static int wait_for(uint32_t request, struct gv_backed *answer)
{
    const uint64_t deadline = gv_now_ns() + ANSWER_S * 1000000000ull;
    for (;;) {
        const uint64_t now = gv_now_ns();
        if (now >= deadline)
            return ETIMEDOUT;
        struct pollfd waiting = {connection, POLLIN, 0};
        if (poll(&waiting, 1, (int)((deadline - now) / 1000000) + 1) < 0 && errno != EINTR)
            return errno;
        if (waiting.revents == 0)
            continue;
        union gv_packet packet;
        int descriptors[GV_DESCRIPTORS_MAX];
        const int received = gv_receive(connection, &packet, descriptors);
        if (received < 0)
            return -received; /* the loop finds the same, and connects again */
        if (received == 0)
            continue;
        if (packet.header.type == GV_BACKED && packet.header.size >= sizeof packet.backed) {
            gv_close_descriptors(descriptors);
            if (packet.backed.request != request)
                continue; /* to one that we have given up */
            *answer = packet.backed;
            return 0;
        }
        const int error = keep(&packet, descriptors);
        if (error != 0) {
            gv_close_descriptors(descriptors);
            return error;
        }
    }
}

CUresult gv_backing_ask(uint32_t segment, uint32_t segments)
{
    struct gv_back message = {.request = ++last_request, .segment = segment, .count = segments};
    struct gv_backed answer;
    int error = connection < 0 ? ENOTCONN : gv_send(connection, GV_BACK, &message, sizeof message);
    if (error == 0)
        error = wait_for(message.request, &answer);
    if (error != 0) {
        gv_debug("no host memory for the arena: the daemon does not answer (%s)", strerror(error));
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (answer.status != CUDA_SUCCESS) {
        answer.reason[sizeof answer.reason - 1] = '\0';
        gv_debug("no host memory for the arena: %s", answer.reason);
    }
    return (CUresult)answer.status;
}
