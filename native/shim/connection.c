/* SPDX-License-Identifier: Apache-2.0 */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* Below 64: a larger table of descriptors costs a process with threads a grace period of the kernel, milliseconds. */
enum { OURS_FROM = 48, OURS_AT_LEAST = 3 };

int gv_out_of_the_way(int descriptor)
{
    const int saved = errno;
    if (descriptor < 0)
        return descriptor;
    int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, OURS_FROM);
    if (moved < 0 && descriptor < OURS_AT_LEAST) /* the limit is lower, or reached */
        moved = fcntl(descriptor, F_DUPFD_CLOEXEC, OURS_AT_LEAST);
    if (moved >= 0)
        close(descriptor);
    errno = saved;
    return moved >= 0 ? moved : descriptor;
}

int gv_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    const int handle = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (handle < 0)
        return -errno;
    /* A daemon that is stopped must not hold the control thread for ever. */
    const struct timeval limit = {.tv_sec = 5};
    setsockopt(handle, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(handle, (const struct sockaddr *)&address, sizeof address) != 0) {
        const int error = errno;
        close(handle);
        return -error;
    }
    return gv_out_of_the_way(handle);
}

int gv_send(int handle, uint16_t type, void *message, size_t size)
{
    return gv_send_descriptors(handle, type, message, size, NULL, 0);
}

int gv_send_descriptors(int handle, uint16_t type, void *message, size_t size, const int *descriptors, int count)
{
    char control[CMSG_SPACE(sizeof(int) * GV_DESCRIPTORS_MAX)] = {0};
    struct iovec part = {message, size};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    if (count != 0) {
        packet.msg_control = control;
        packet.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *const rights = CMSG_FIRSTHDR(&packet);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(rights), descriptors, sizeof(int) * (size_t)count);
    }
    struct gv_message_header *const header = message;
    *header = (struct gv_message_header){GV_MESSAGE_MAGIC, GV_PROTOCOL_VERSION, type, (uint16_t)size};
    for (;;) {
        const ssize_t sent = sendmsg(handle, &packet, MSG_NOSIGNAL);
        if (sent == (ssize_t)size)
            return 0;
        if (sent >= 0)
            return EIO;
        if (errno != EINTR)
            return errno;
    }
}

static void take_descriptors(struct msghdr *message, int descriptors[GV_DESCRIPTORS_MAX])
{
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t sent = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < sent; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(c) + i * sizeof(int), sizeof descriptor);
            if (count < GV_DESCRIPTORS_MAX)
                descriptors[count++] = gv_out_of_the_way(descriptor);
            else
                close(descriptor);
        }
    }
}

void gv_close_descriptors(int descriptors[GV_DESCRIPTORS_MAX])
{
    for (int i = 0; i < GV_DESCRIPTORS_MAX; i++) {
        if (descriptors[i] >= 0)
            close(descriptors[i]);
        descriptors[i] = -1; /* who closes them again must not hit what the program has opened meanwhile */
    }
}

int gv_receive(int handle, union gv_packet *packet, int descriptors[GV_DESCRIPTORS_MAX])
{
    char control[CMSG_SPACE(sizeof(int) * GV_DESCRIPTORS_MAX)];
    struct iovec part = {packet, sizeof *packet};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    for (int i = 0; i < GV_DESCRIPTORS_MAX; i++)
        descriptors[i] = -1;
    memset(packet, 0, sizeof *packet);
    const ssize_t size = recvmsg(handle, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    take_descriptors(&message, descriptors);
    if (size == 0)
        return -ECONNRESET;
    if ((size_t)size < sizeof packet->header || packet->header.magic != GV_MESSAGE_MAGIC ||
        packet->header.size != (uint16_t)size || (message.msg_flags & MSG_TRUNC) != 0) {
        gv_close_descriptors(descriptors);
        return -EPROTO;
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0) { /* some of its descriptors found no place */
        gv_close_descriptors(descriptors);
        return -EMFILE;
    }
    return 1;
}
