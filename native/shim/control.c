/* SPDX-License-Identifier: Apache-2.0
 *
 * The control thread: the only one that talks to the daemon, drains, and moves extents. It sleeps in poll while there is
 * nothing to do. The messages and their order are described in gpuvirt/messages.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "activity.h"
#include "arena.h"
#include "connection.h"
#include "contexts.h"
#include "drain.h"
#include "environment.h"
#include "failpoints.h"
#include "graph_memory.h"
#include "log.h"
#include "memory.h"
#include "pages.h"
#include "real_driver.h"
#include "room.h"
#include "session.h"
#include "sharing.h"
#include "tables.h"
#include "unknown.h"

enum {
    TICK_MS = 500,
    RECONNECT_MS = 50,
    RECONNECT_SLOW_MS = 1000,
    ANSWER_MS = 3000,
    WANT_AGAIN_MS = 50,
    IDLE_LASTS_NS = 100000
};

static int connection = -1;
static int was_attached;     /* to any daemon, ever */
static uint32_t wanted_word; /* lease word at the last WANT, and its time: not to repeat it at every wake */
static uint64_t wanted_at;

void gv_control_forget(void)
{
    if (connection >= 0)
        close(connection);
    connection = -1;
    was_attached = 0;
}

static void disconnect(int error)
{
    if (connection < 0)
        return;
    gv_debug("connection to gpuvirtd lost (%s); going on as before and looking for it", strerror(error));
    if (error != EBADF && error != ENOTSOCK) /* else the program closed it, with all that it did not know */
        close(connection);
    connection = -1;
}

static void tell_with(uint16_t type, void *message, size_t size, const int *descriptors, int count)
{
    const int error =
        connection < 0 ? ENOTCONN : gv_send_descriptors(connection, type, message, size, descriptors, count);
    if (error != 0)
        disconnect(error);
}

static void tell(uint16_t type, void *message, size_t size) { tell_with(type, message, size, NULL, 0); }

/* What the daemon is about to hear. */
static struct gv_memory_report report_memory(void)
{
    struct gv_memory_report report;
    gv_extents_report(&report);
    gv_memory.reported = report.charged;
    gv_memory.reported_fixed = report.fixed;
    return report;
}

static void tell_memory(void)
{
    const struct gv_memory_report report = report_memory();
    struct gv_memory message = {
        .charged_bytes = report.charged, .resident_bytes = report.resident, .native_bytes = report.fixed};
    tell(GV_MEMORY, &message, sizeof message);
}

static void tell_moved(uint16_t type, const struct gv_move *move, uint64_t began)
{
    const struct gv_memory_report report = report_memory();
    struct gv_client *const page = gv_session.client;
    uint64_t *const total = type == GV_EVICTED ? &page->out_bytes : &page->in_bytes;
    gv_store64(total, *total + move->bytes_moved);
    struct gv_moved message = {.status = move->status,
                               .charged_bytes = report.charged,
                               .resident_bytes = report.resident,
                               .moved_bytes = move->bytes_moved,
                               .short_bytes = move->bytes_short,
                               .duration_ns = gv_now_ns() - began,
                               .native_bytes = report.fixed};
    const int lost = gv_failpoint(type == GV_EVICTED ? GV_FAIL_EVICT_END : GV_FAIL_RESTORE_END);
    tell(lost ? 0 : type, &message, sizeof message); /* no type at all: the daemon hangs up */
}

/* --- attach ------------------------------------------------------------------------------------------------------------- */

static void set_state(enum gv_session_state state)
{
    __atomic_store_n(&gv_session.state, state, __ATOMIC_RELEASE);
    syscall(SYS_futex, &gv_session.state, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

static int send_hello(int handle)
{
    const struct gv_memory_report report = report_memory();
    struct gv_hello hello = {.minimum_version = GV_PROTOCOL_VERSION,
                             .claimed_pid = (uint32_t)getpid(),
                             .device = (uint32_t)gv_session.device,
                             .reattach = (uint32_t)was_attached,
                             .granularity = gv_memory_granule(),
                             .device_total = gv_memory.total,
                             .charged_bytes = report.charged,
                             .resident_bytes = report.resident,
                             .native_bytes = report.fixed};
    memcpy(hello.device_uuid, gv_session.uuid.bytes, sizeof hello.device_uuid);
    memcpy(hello.token, gv_environment()->token, sizeof hello.token);
    return gv_send(handle, GV_HELLO, &hello, sizeof hello);
}

static int accept_welcome(int handle, const union gv_packet *packet, const int descriptors[GV_DESCRIPTORS_MAX])
{
    const struct gv_welcome *const welcome = &packet->welcome;
    if (packet->header.size < sizeof *welcome || descriptors[2] < 0)
        return EPROTO;
    int error = gv_arena_attach(descriptors[2], welcome->arena_bytes, gv_memory_granule());
    if (error == 0)
        error = gv_pages_take(descriptors[0], descriptors[1]);
    close(descriptors[0]);
    close(descriptors[1]);
    if (error != 0)
        return error;
    gv_memory.allowance = welcome->allowance;
    connection = handle;
    gv_drain_renew();
    wanted_at = 0;
    if (was_attached) {
        gv_sharing_reattached();
        gv_drain_now(); /* the new page says CLOSED; under the old one work may have been given */
    }
    struct gv_drained drained = {.epoch = 0};
    tell(GV_DRAINED, &drained, sizeof drained);
    tell_memory();
    if (!was_attached) {
        was_attached = 1;
        __atomic_store_n(&gv_gate.lease, gv_session.lease, __ATOMIC_RELEASE);
        __atomic_fetch_or(&gv_gate.obstacles, GV_IS_IDLE, __ATOMIC_ACQ_REL);
        __atomic_fetch_and(&gv_gate.obstacles, ~GV_UNATTACHED, __ATOMIC_ACQ_REL);
        set_state(GV_SESSION_ATTACHED);
    }
    return 0;
}

static void refused(const union gv_packet *packet)
{
    static int said;
    char reason[GV_TEXT_BYTES];
    memcpy(reason, packet->refused.reason, sizeof reason);
    reason[sizeof reason - 1] = '\0';
    if (!said)
        gv_log("gpuvirtd refuses this process: %s", reason);
    said = 1;
    if (was_attached) {
        gv_pages_close(); /* a daemon that does not know us may give the GPU to others: wait until it does */
        return;
    }
    gv_session.refusal =
        packet->refused.code == CUDA_SUCCESS ? CUDA_ERROR_NOT_PERMITTED : (CUresult)packet->refused.code;
    set_state(GV_SESSION_REFUSED);
}

/* One try to attach. 0, or an errno; EACCES after REFUSED. */
int gv_control_try(void)
{
    const int handle = gv_connect(gv_environment()->socket);
    if (handle < 0)
        return -handle;
    union gv_packet packet;
    int descriptors[GV_DESCRIPTORS_MAX];
    int error = send_hello(handle);
    struct pollfd waiting = {handle, POLLIN, 0};
    if (error == 0 && poll(&waiting, 1, ANSWER_MS) != 1)
        error = ETIMEDOUT;
    const int received = error == 0 ? gv_receive(handle, &packet, descriptors) : 0;
    if (error == 0 && received != 1)
        error = received < 0 ? -received : EPROTO;
    if (error == 0 && packet.header.type == GV_WELCOME) {
        error = accept_welcome(handle, &packet, descriptors);
    } else if (error == 0) {
        if (packet.header.type == GV_REFUSED && packet.header.size >= sizeof packet.refused)
            refused(&packet);
        error = EACCES;
    }
    if (error != 0)
        close(handle);
    return error;
}

/* Tries until attached. A first attach gives up after a while, loudly; a process that was attached never does. */
static void attach(void)
{
    const uint64_t began = gv_now_ns();
    for (int tries = 0; connection < 0; tries++) {
        const int error = gv_control_try();
        if (error == 0 || gv_session_refused())
            return;
        if (!was_attached && (error == EMFILE || gv_now_ns() - began > gv_environment()->attach_timeout_ns)) {
            gv_log("cannot reach gpuvirtd on %s: %s; %s", gv_environment()->socket, strerror(error),
                   error == EMFILE ? "close some, or raise ulimit -n" : "is it running? (gpuvirt doctor)");
            gv_session.refusal = CUDA_ERROR_SYSTEM_NOT_READY;
            set_state(GV_SESSION_REFUSED);
            return;
        }
        const int pause = tries < 40 ? RECONNECT_MS : RECONNECT_SLOW_MS;
        nanosleep(&(struct timespec){pause / 1000, pause % 1000 * 1000000L}, NULL);
    }
}

/* --- the daemon's wishes ------------------------------------------------------------------------------------------------ */

static void follow_lease(void)
{
    const uint32_t word = gv_load32(&gv_session.lease->word);
    const uint32_t epoch = gv_lease_epoch(word);
    if (gv_lease_state(word) != GV_LEASE_DRAIN)
        return;
    struct gv_drained drained = {.epoch = epoch};
    struct gv_stuck stuck = {.epoch = epoch, .waits = __atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED)};
    switch (gv_drain_follow(epoch)) {
    case GV_DRAIN_ENDED:
        gv_store32(&gv_session.client->drained_epoch, epoch);
        tell(GV_DRAINED, &drained, sizeof drained);
        break;
    case GV_DRAIN_STUCK:
        tell(GV_STUCK, &stuck, sizeof stuck);
        break;
    case GV_DRAIN_NOTHING:
        break;
    }
}

static void restore(uint64_t allowance)
{
    const uint64_t began = gv_now_ns();
    /* Fixed memory that the driver refused is told first, by the answer that says so: the daemon makes room and asks again. */
    struct gv_move move = {CUDA_ERROR_OUT_OF_MEMORY, 0, gv_room_missing()};
    if (move.bytes_short == 0)
        move = gv_extents_restore(allowance);
    wanted_at = 0; /* answered: the next want is a new one */
    gv_extents_publish();
    tell_moved(GV_RESTORED, &move, began);
    gv_gate_notify();
    gv_room_answered(move.status == CUDA_SUCCESS);
}

static void evict(uint64_t target)
{
    const uint64_t began = gv_now_ns();
    struct gv_move move = {CUDA_ERROR_ILLEGAL_STATE, 0, 0};
    /* Never unmap under a lease: the daemon may be wrong, the data must not be. */
    if (!gv_holds_lease(gv_load32(&gv_session.lease->word))) {
        gv_graph_memory_trim();
        move = gv_extents_evict(target);
    }
    gv_extents_publish();
    tell_moved(GV_EVICTED, &move, began);
}

static void handle(const union gv_packet *packet, int *descriptors)
{
    switch (packet->header.type) {
    case GV_RESTORE:
        if (packet->header.size >= sizeof packet->restore)
            restore(packet->restore.allowance);
        break;
    case GV_EVICT:
        if (packet->header.size >= sizeof packet->evict)
            evict(packet->evict.target);
        break;
    case GV_WAKE: /* the lease word changed: follow_lease was here before us, or it says that somebody waits */
        gv_extents_publish(); /* or that we are not alone any more: what we charge counts for the others */
        if (gv_lease_state(gv_load32(&gv_session.lease->word)) == GV_LEASE_GRANTED)
            gv_activity_look();
        break;
    case GV_SHARED:
        if (packet->header.size >= sizeof packet->shared)
            gv_sharing_answered(&packet->shared, descriptors);
        break;
    } /* else: what a newer daemon may say */
}

/* --- the program's wishes ----------------------------------------------------------------------------------------------- */

static void want(void)
{
    const uint32_t word = gv_load32(&gv_session.lease->word);
    if (gv_holds_lease(word)) {
        const int room_wanted = gv_room_wanted();
        if ((gv_gate.obstacles & GV_ABSENT_MASK) == 0 && !room_wanted)
            return;
        /* New memory within what the daemon already allows: no need to ask. */
        const struct gv_move move = gv_extents_restore(gv_memory.allowance);
        gv_extents_publish();
        if (move.status == CUDA_SUCCESS) /* else who waits would ask again at once, and so would we */
            gv_gate_notify();
        if (move.status == CUDA_SUCCESS && (gv_gate.obstacles & GV_ABSENT_MASK) == 0 && !room_wanted) {
            struct gv_client *const page = gv_session.client;
            gv_store64(&page->in_bytes, page->in_bytes + move.bytes_moved);
            tell_memory();
            return;
        }
    }
    const uint64_t now = gv_now_ns();
    if (wanted_at != 0 && wanted_word == word && now - wanted_at < WANT_AGAIN_MS * 1000000ull)
        return;
    wanted_word = word;
    wanted_at = now;
    const struct gv_memory_report report = report_memory();
    struct gv_want message = {
        .charged_bytes = report.charged, .resident_bytes = report.resident, .native_bytes = report.fixed};
    tell(GV_WANT, &message, sizeof message);
}

/* A program that waits for each launch is idle thousands of times a second, for some microseconds each. Only idleness that
 * lasts is worth a message; meanwhile further pokes cost the program nothing. */
static void tell_idle(void)
{
    nanosleep(&(struct timespec){0, IDLE_LASTS_NS}, NULL);
    if (gv_load32(&gv_session.client->state) != GV_CLIENT_IDLE)
        return; /* at work again */
    struct gv_idle message = {.since_ns = gv_session.client->ready_since_ns};
    tell(GV_IDLE, &message, sizeof message);
}

static void take_pokes(void)
{
    eventfd_t count;
    if (eventfd_read(gv_session.doorbell, &count) != 0 && errno == EBADF)
        gv_session_renew_doorbell();
    const uint32_t pokes = __atomic_exchange_n(&gv_session.pokes, 0, __ATOMIC_ACQ_REL);
    if (connection < 0)
        return; /* whoever waits pokes again */
    if (pokes & GV_POKE_WANT)
        want();
    if (pokes & GV_POKE_IDLE)
        tell_idle();
    if (pokes & GV_POKE_MEMORY)
        tell_memory();
    if (pokes & GV_POKE_SHARE)
        gv_sharing_send(tell_with);
}

/* Tables that programs asked for, and where memory is if that is a surprise; each once. */
static void tell_remarks(void)
{
    struct gv_event line = {0};
    while (connection >= 0 && (gv_table_next(line.text, GV_TEXT_BYTES) || gv_window_remark(line.text, GV_TEXT_BYTES)))
        tell(GV_EVENT, &line, sizeof line);
}

void *gv_control_thread(__attribute__((unused)) void *unused)
{
    for (;;) {
        if (connection < 0)
            attach();
        if (connection < 0 && gv_session_refused() && !was_attached)
            return NULL;
        gv_activity_publish();
        gv_unknown_tell(connection, gv_session.client);
        tell_remarks();
        struct pollfd events[] = {{connection, POLLIN, 0}, {gv_session.doorbell, POLLIN, 0}};
        const int ready = poll(events, 2, gv_drain_due_ms(TICK_MS));
        follow_lease();
        if (connection >= 0 && events[0].revents != 0) {
            union gv_packet packet;
            int descriptors[GV_DESCRIPTORS_MAX];
            const int received = gv_receive(connection, &packet, descriptors);
            if (received == 1)
                handle(&packet, descriptors);
            else if (received < 0)
                disconnect(-received);
            gv_close_descriptors(descriptors); /* whoever wanted one has taken it */
        }
        take_pokes();
        if (ready == 0)
            gv_extents_quiet();
        gv_contexts_leave(); /* whatever of this turn entered one */
    }
}
