/* SPDX-License-Identifier: Apache-2.0
 *
 * The control thread: the only one that talks to the daemon, drains, and moves extents. It sleeps in poll while there is
 * nothing to do. The messages and their order are described in gpuvirt/messages.h.
 */
#define _GNU_SOURCE /* ppoll */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "activity.h"
#include "arena.h"
#include "backing.h"
#include "connection.h"
#include "contexts.h"
#include "drain.h"
#include "environment.h"
#include "log.h"
#include "memory.h"
#include "moves.h"
#include "pages.h"
#include "real_driver.h"
#include "restore.h"
#include "room.h"
#include "session.h"
#include "sharing.h"
#include "swap.h"
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
    gv_moves_forget();
}

static void disconnect(int error)
{
    if (connection < 0)
        return;
    gv_debug("connection to gpuvirtd lost (%s); going on as before and looking for it", strerror(error));
    if (error != EBADF && error != ENOTSOCK) /* else the program closed it, with all that it did not know */
        close(connection);
    connection = -1;
    gv_backing_connected(-1);
}

static void tell_with(uint16_t type, void *message, size_t size, const int *descriptors, int count)
{
    const int error =
        connection < 0 ? ENOTCONN : gv_send_descriptors(connection, type, message, size, descriptors, count);
    if (error != 0)
        disconnect(error);
}

void gv_control_tell(uint16_t type, void *message, size_t size) { tell_with(type, message, size, NULL, 0); }
int gv_control_connected(void) { return connection >= 0; }
void gv_control_served(void) { wanted_at = 0; }

/* What the daemon is about to hear. */
struct gv_memory_report gv_control_report(void)
{
    struct gv_memory_report report;
    gv_extents_tell(&report);
    gv_memory.reported = report.charged;
    gv_memory.reported_fixed = report.fixed;
    gv_memory.reported_resident = report.resident;
    return report;
}

void gv_control_tell_memory(void)
{
    const struct gv_memory_report report = gv_control_report();
    struct gv_memory message = {
        .charged_bytes = report.charged, .resident_bytes = report.resident, .native_bytes = report.fixed};
    gv_control_tell(GV_MEMORY, &message, sizeof message);
}

/* --- attach ------------------------------------------------------------------------------------------------------------- */

static void set_state(enum gv_session_state state)
{
    __atomic_store_n(&gv_session.state, state, __ATOMIC_RELEASE);
    syscall(SYS_futex, &gv_session.state, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

static int send_hello(int handle)
{
    const struct gv_memory_report report = gv_control_report();
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
    /* Who was attached before has an arena, which a daemon that has restarted does not know. */
    const int arena = was_attached ? gv_arena_descriptor(&hello.owner) : -1;
    return gv_send_descriptors(handle, GV_HELLO, &hello, sizeof hello, &arena, arena >= 0);
}

static int accept_welcome(int handle, const union gv_packet *packet, int descriptors[GV_DESCRIPTORS_MAX])
{
    const struct gv_welcome *const welcome = &packet->welcome;
    int error = packet->header.size < sizeof *welcome || descriptors[2] < 0 ? EPROTO : 0;
    if (error == 0)
        gv_drain_renew();
    if (error == 0)
        error = gv_pages_take(descriptors[0], descriptors[1]);
    if (error == 0) { /* the last step: who has an arena has its owner number in it for good */
        error = gv_arena_attach(descriptors[2], welcome->arena_bytes, welcome->owner);
        descriptors[2] = -1;
    }
    gv_close_descriptors(descriptors);
    if (error != 0)
        return error;
    gv_memory.allowance = welcome->allowance;
    connection = handle;
    gv_backing_connected(handle);
    wanted_at = 0;
    if (was_attached) {
        gv_sharing_reattached();
        gv_drain_again(); /* follow_lease tells its end: it may take for ever */
    } else {
        struct gv_drained drained = {.epoch = 0};
        gv_control_tell(GV_DRAINED, &drained, sizeof drained);
    }
    gv_control_tell_memory();
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
        gv_close_descriptors(descriptors);
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
    const uint32_t epoch = gv_lease_state(word) == GV_LEASE_DRAIN ? gv_lease_epoch(word) : 0;
    if (gv_holds_lease(word) || (epoch == 0 && connection < 0)) /* 0 is the daemon's that is connected */
        return;
    struct gv_drained drained = {.epoch = epoch};
    struct gv_stuck stuck = {.epoch = epoch, .waits = __atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED)};
    switch (gv_drain_follow(epoch)) {
    case GV_DRAIN_ENDED:
        if (epoch != 0)
            gv_drain_tell(epoch);
        gv_control_tell(GV_DRAINED, &drained, sizeof drained);
        break;
    case GV_DRAIN_STUCK:
        gv_control_tell(GV_STUCK, &stuck, sizeof stuck);
        break;
    case GV_DRAIN_NOTHING:
        break;
    }
}

static void handle(const union gv_packet *packet, int *descriptors)
{
    switch (packet->header.type) {
    case GV_RESTORE:
    case GV_CREDIT:
    case GV_EVICT:
        gv_moves_take(packet);
        break;
    case GV_WAKE: /* the lease word changed: follow_lease was here before us, or it says that somebody waits */
        gv_extents_publish(); /* or that we are not alone any more: what we charge counts for the others */
        if (gv_lease_state(gv_load32(&gv_session.lease->word)) == GV_LEASE_GRANTED)
            gv_activity_look();
        if (!(gv_load32(&gv_session.lease->flags) & GV_LEASE_FITS) && !gv_swap_holds_context())
            gv_swap_prepare();
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
    if (gv_holds_lease(word) && gv_moves_grow())
        return; /* within what the daemon already allows: no need to ask */
    const uint64_t now = gv_now_ns();
    if (wanted_at != 0 && wanted_word == word && now - wanted_at < WANT_AGAIN_MS * 1000000ull)
        return;
    wanted_word = word;
    wanted_at = now;
    const struct gv_memory_report report = gv_control_report();
    struct gv_want message = {
        .charged_bytes = report.charged, .resident_bytes = report.resident, .native_bytes = report.fixed};
    gv_control_tell(GV_WANT, &message, sizeof message);
}

/* A program that waits for each launch is idle thousands of times a second, for some microseconds each. Only idleness that
 * lasts is worth a message; meanwhile further pokes cost the program nothing. */
static void tell_idle(void)
{
    struct pollfd daemon = {connection, POLLIN, 0};
    if (ppoll(&daemon, 1, &(struct timespec){0, IDLE_LASTS_NS}, NULL) != 0) {
        gv_session_poke(GV_POKE_IDLE); /* again when that is done: to be asked for the GPU must not wait for this */
        return;
    }
    if (gv_load32(&gv_session.client->state) != GV_CLIENT_IDLE)
        return; /* at work again */
    struct gv_idle message = {.since_ns = gv_session.client->ready_since_ns};
    gv_control_tell(GV_IDLE, &message, sizeof message);
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
        gv_control_tell_memory();
    if (pokes & GV_POKE_SHARE)
        gv_sharing_send(tell_with);
}

/* Tables that programs asked for, and where memory is if that is a surprise; each once. */
static void tell_remarks(void)
{
    struct gv_event line = {0};
    while (connection >= 0 && (gv_table_next(line.text, GV_TEXT_BYTES) || gv_window_remark(line.text, GV_TEXT_BYTES)))
        gv_control_tell(GV_EVENT, &line, sizeof line);
}

/* Nothing has happened for a while. What the program has taken and given back meanwhile was not worth a message each time. */
static void settle_accounts(void)
{
    struct gv_memory_report report;
    gv_extents_release_all_unused();
    gv_extents_report(&report);
    gv_swap_publish_held();
    if (connection >= 0 && !gv_restore_under_way() &&
        (report.charged != gv_memory.reported || report.resident != gv_memory.reported_resident))
        gv_control_tell_memory();
}

void *gv_control_thread(__attribute__((unused)) void *unused)
{
    for (;;) {
        if (connection < 0) {
            gv_moves_lost();
            attach();
        }
        if (connection < 0 && gv_session_refused() && !was_attached)
            return NULL;
        gv_activity_publish();
        gv_unknown_tell(connection, gv_session.client);
        tell_remarks();
        struct pollfd events[] = {{connection, POLLIN, 0}, {gv_session.doorbell, POLLIN, 0}};
        const int ready = poll(events, 2, gv_moves_go_on() || gv_backing_any() ? 0 : gv_drain_due_ms(TICK_MS));
        follow_lease();
        if (connection >= 0 && (events[0].revents != 0 || gv_backing_any())) {
            union gv_packet packet;
            int descriptors[GV_DESCRIPTORS_MAX];
            const int received =
                gv_backing_next(&packet, descriptors) ? 1 : gv_receive(connection, &packet, descriptors);
            if (received == 1)
                handle(&packet, descriptors);
            else if (received < 0)
                disconnect(-received);
            gv_close_descriptors(descriptors); /* whoever wanted one has taken it */
        }
        take_pokes();
        if (ready == 0)
            settle_accounts();
        if (ready == 0 && !gv_restore_under_way() && gv_contexts_enter() == CUDA_SUCCESS)
            gv_arena_sweep();
        if (!gv_swap_holds_context())
            gv_contexts_leave(); /* whatever of this turn entered one */
    }
}
