/* SPDX-License-Identifier: Apache-2.0 */
#include "pages.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "log.h"
#include "session.h"

int gv_pages_prepare(void)
{
    void *lease = mmap(NULL, GV_PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *client = mmap(NULL, GV_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lease == MAP_FAILED || client == MAP_FAILED)
        return -1;
    gv_session.lease = lease;
    gv_session.client = client;
    return 0;
}

int gv_pages_take(int lease, int client)
{
    const struct gv_client before = *gv_session.client;
    if (mmap(gv_session.lease, GV_PAGE_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, lease, 0) == MAP_FAILED ||
        mmap(gv_session.client, GV_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, client, 0) == MAP_FAILED)
        return errno;
    const struct gv_client *const page = gv_session.client;
    if (gv_session.lease->magic != GV_LEASE_MAGIC || gv_session.lease->version != GV_PAGE_VERSION ||
        page->magic != GV_CLIENT_MAGIC || page->version != GV_PAGE_VERSION)
        return EPROTO;
    struct gv_client now = before;
    memcpy(&now, page, offsetof(struct gv_client, state)); /* what the daemon set stays */
    now.drained_epoch = 0;
    *gv_session.client = now;
    return 0;
}

void gv_pages_close(void)
{
    if (mmap(gv_session.lease, GV_PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        gv_debug("cannot close the gate: %s", strerror(errno));
}
