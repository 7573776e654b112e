/* SPDX-License-Identifier: Apache-2.0
 *
 * The shared pages and messages keep their layout: a daemon and a shim of different builds must agree. A change here is a
 * change of GV_PAGE_VERSION or GV_PROTOCOL_VERSION.
 */
#include "check.h"
#include "gpuvirt/control_block_ops.h"

int main(void)
{
    CHECK_EQUAL(offsetof(struct gv_lease, word), 16);
    CHECK_EQUAL(offsetof(struct gv_lease, flags), 20);
    CHECK_EQUAL(offsetof(struct gv_lease, deadline_ns), 24);
    CHECK_EQUAL(offsetof(struct gv_lease, heartbeat_ns), 32);
    CHECK_EQUAL(offsetof(struct gv_lease, quota_bytes), 40);
    CHECK_EQUAL(offsetof(struct gv_lease, clients), 52);
    CHECK_EQUAL(offsetof(struct gv_lease, charged_bytes), 56);
    CHECK_EQUAL(offsetof(struct gv_client, state), 16);
    CHECK_EQUAL(offsetof(struct gv_client, drained_epoch), 20);
    CHECK_EQUAL(offsetof(struct gv_client, busy_ns), 32);
    CHECK_EQUAL(offsetof(struct gv_client, charged_bytes), 56);
    CHECK_EQUAL(offsetof(struct gv_client, out_bytes), 80);
    CHECK_EQUAL(offsetof(struct gv_hello, granularity), 24);
    CHECK_EQUAL(offsetof(struct gv_hello, device_uuid), 56);
    CHECK_EQUAL(offsetof(struct gv_hello, token), 72);
    CHECK_EQUAL(offsetof(struct gv_welcome, allowance), 16);
    CHECK_EQUAL(offsetof(struct gv_moved, charged_bytes), 16);
    CHECK_EQUAL(sizeof(struct gv_moved), 112);
    CHECK_EQUAL(sizeof(struct gv_want), 32);
    for (uint32_t epoch = 1; epoch < 1u << 28; epoch = epoch * 3 + 1) {
        const uint32_t word = gv_lease_word(epoch, GV_LEASE_DRAIN);
        CHECK_EQUAL(gv_lease_epoch(word), epoch);
        CHECK_EQUAL(gv_lease_state(word), GV_LEASE_DRAIN);
    }
    return 0;
}
