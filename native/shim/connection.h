/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket to the daemon: connect, send one packet, receive one packet with its descriptors. Control thread only.
 */
#ifndef GPUVIRT_SHIM_CONNECTION_H
#define GPUVIRT_SHIM_CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#include "gpuvirt/messages.h"

enum { GV_DESCRIPTORS_MAX = GV_SHARE_MAX };

union gv_packet {
    struct gv_message_header header;
    struct gv_welcome welcome;
    struct gv_refused refused;
    struct gv_restore restore;
    struct gv_credit credit;
    struct gv_evict evict;
    struct gv_shared shared;
    struct gv_backed backed;
    uint8_t bytes[1024];
};

/*
 * Moves a descriptor of ours to a number that programs rarely get to. A program finds the lowest numbers free as it left them;
 * and one that was started without standard error must not write its messages into our socket.
 */
int gv_out_of_the_way(int descriptor);

/* A connected socket, or -errno. */
int gv_connect(const char *path);

/* Fills in the header and sends. 0, or an errno (the connection is then of no use). */
int gv_send(int socket, uint16_t type, void *message, size_t size);
/* The same with descriptors, at most GV_DESCRIPTORS_MAX; they stay the caller's. */
int gv_send_descriptors(int socket, uint16_t type, void *message, size_t size, const int *descriptors, int count);

/*
 * Receives one packet without waiting; its descriptors (CLOEXEC) go to `descriptors`, unused entries are -1. Returns 1, 0 when
 * there is none, or -errno when the connection ended or the packet is not of the protocol.
 */
int gv_receive(int socket, union gv_packet *packet, int descriptors[GV_DESCRIPTORS_MAX]);
void gv_close_descriptors(int descriptors[GV_DESCRIPTORS_MAX]);

#endif
