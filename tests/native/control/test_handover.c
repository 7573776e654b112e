/* SPDX-License-Identifier: Apache-2.0
 *
 * Hand-overs that happen without Python: only what is armed fires, once, when all clients have drained; pages may go away.
 */
#define _GNU_SOURCE /* pthread, eventfd */
#include "gpuvirt/handover_ops.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "check.h"

static struct gv_handover handover;
static struct gv_lease giver, taker;

static void *page(void)
{
    void *const made = mmap(NULL, GV_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(made != MAP_FAILED);
    return made;
}

static void plan(uint32_t epoch, uint32_t clients, struct gv_client **pages)
{
    gv_handover_drains(&handover, epoch, clients);
    for (uint32_t i = 0; i < clients; i++)
        gv_handover_client(&handover, i, &pages[i]->drained_epoch);
    handover.giver = &giver;
    handover.taker = &taker;
    handover.giver_word = gv_lease_word(epoch, GV_LEASE_CLOSED);
    handover.taker_word = gv_lease_word(epoch + 1, GV_LEASE_GRANTED);
    handover.flags = GV_LEASE_FITS;
    handover.window_us = 7;
    handover.length_ns = 1000;
    gv_store32(&giver.word, gv_lease_word(epoch, GV_LEASE_DRAIN));
    gv_store32(&taker.word, 0);
    gv_handover_arm(&handover);
}

static void drained(struct gv_client *client, uint32_t epoch)
{
    gv_store32(&client->drained_epoch, epoch);
    gv_futex_wake_all(&client->drained_epoch);
}

/* Waits for the descriptor: it has fired. */
static void heard(void)
{
    eventfd_t count;
    while (eventfd_read(handover.descriptor, &count) != 0)
        sched_yield();
    CHECK_EQUAL(count, 1);
}

static void test_fires_when_all_have_drained(void)
{
    struct gv_client *clients[] = {page(), page(), page()};
    plan(5, 3, clients);
    drained(clients[1], 5);
    drained(clients[0], 5);
    drained(clients[2], 4); /* of another drain */
    CHECK_EQUAL(gv_lease_state(gv_load32(&taker.word)), GV_LEASE_CLOSED);
    drained(clients[2], 5);
    heard();
    CHECK_EQUAL(gv_load32(&taker.word), gv_lease_word(6, GV_LEASE_GRANTED));
    CHECK_EQUAL(gv_load32(&giver.word), gv_lease_word(5, GV_LEASE_CLOSED));
    const uint64_t at = gv_handover_take(&handover);
    CHECK(at != 0 && at <= gv_now_ns());
    CHECK_EQUAL(taker.deadline_ns, at + 1000);
    CHECK(taker.flags == GV_LEASE_FITS && taker.window_us == 7);
    CHECK_EQUAL(gv_handover_take(&handover), 0);
    for (int i = 0; i < 3; i++)
        CHECK(munmap(clients[i], GV_PAGE_BYTES) == 0);
}

static void test_does_not_fire_when_taken_before(void)
{
    struct gv_client *client = page();
    plan(9, 1, &client);
    CHECK_EQUAL(gv_handover_take(&handover), 0);
    drained(client, 9);
    gv_handover_leave(&handover, &client->drained_epoch);
    CHECK(munmap(client, GV_PAGE_BYTES) == 0);
    CHECK_EQUAL(gv_lease_state(gv_load32(&taker.word)), GV_LEASE_CLOSED);
    CHECK_EQUAL(gv_lease_state(gv_load32(&giver.word)), GV_LEASE_DRAIN);
}

static void *drain_soon(void *client)
{
    for (int spins = rand() % 3000; spins > 0; spins--)
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    drained(client, 1);
    return NULL;
}

/* At any moment: it has fired and both words say so, or it has not and will not. */
static void test_races(void)
{
    int fired = 0;
    for (int round = 0; round < 2000; round++) {
        struct gv_client *client = page();
        pthread_t program;
        plan(1, 1, &client);
        CHECK(pthread_create(&program, NULL, drain_soon, client) == 0);
        for (int spins = rand() % 60000; spins > 0; spins--)
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
        const int done = gv_handover_take(&handover) != 0;
        const uint32_t word = gv_load32(&taker.word);
        CHECK_EQUAL(gv_lease_state(word), done ? GV_LEASE_GRANTED : GV_LEASE_CLOSED);
        CHECK_EQUAL(gv_lease_state(gv_load32(&giver.word)), done ? GV_LEASE_CLOSED : GV_LEASE_DRAIN);
        if (done)
            heard();
        CHECK(pthread_join(program, NULL) == 0);
        gv_handover_leave(&handover, &client->drained_epoch);
        CHECK(munmap(client, GV_PAGE_BYTES) == 0);
        CHECK_EQUAL(gv_load32(&taker.word), word);
        fired += done;
    }
    CHECK(fired > 0);
}

int main(void)
{
    CHECK_EQUAL(gv_handover_start(&handover), 0);
    test_fires_when_all_have_drained();
    test_does_not_fire_when_taken_before();
    test_races();
    struct gv_client *client = page();
    plan(3, 1, &client); /* ends while it waits */
    CHECK_EQUAL(gv_handover_take(&handover), 0);
    gv_handover_stop(&handover);
    return 0;
}
