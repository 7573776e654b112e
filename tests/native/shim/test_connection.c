/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets that are wrong: their descriptors are closed once, and are nobody's to close again.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "connection.h"

static int open_descriptors(void)
{
    int found = 0;
    for (int i = 0; i < 1024; i++)
        found += fcntl(i, F_GETFD) >= 0;
    return found;
}

/* What gv_receive says to a packet with two descriptors, of which `magic` is the only thing that may be wrong. */
static int received(const int pair[2], uint32_t magic, int descriptors[GV_DESCRIPTORS_MAX])
{
    union gv_packet packet = {.shared = {.status = 0}};
    char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    packet.header = (struct gv_message_header){magic, GV_PROTOCOL_VERSION, GV_SHARED, sizeof packet.shared};
    struct iovec part = {&packet, sizeof packet.shared};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *const rights = CMSG_FIRSTHDR(&message);
    *rights = (struct cmsghdr){CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(rights), (const int[]){pair[0], pair[1]}, 2 * sizeof(int));
    CHECK(sendmsg(pair[0], &message, MSG_NOSIGNAL) == (ssize_t)sizeof packet.shared);
    return gv_receive(pair[1], &packet, descriptors);
}

int main(void)
{
    int pair[2], descriptors[GV_DESCRIPTORS_MAX];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    const int before = open_descriptors();
    CHECK(received(pair, GV_MESSAGE_MAGIC, descriptors) == 1);
    CHECK(descriptors[0] >= 0 && descriptors[1] >= 0 && descriptors[2] == -1 && open_descriptors() == before + 2);
    gv_close_descriptors(descriptors);
    CHECK(open_descriptors() == before);

    CHECK(received(pair, 1, descriptors) == -EPROTO);
    CHECK(open_descriptors() == before);
    for (int i = 0; i < GV_DESCRIPTORS_MAX; i++)
        CHECK(descriptors[i] == -1);
    return 0;
}
