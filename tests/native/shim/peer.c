/* SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../check.h"
#include "gpuvirt/store_ops.h"

enum { ARENA_BYTES = 66 << 20, SEGMENT_SLOTS = 2, HEARD_MAX = 128 };

static struct gv_lease *lease;
static struct gv_client *client;
static int connection = -1; /* set once by the peer's thread */
static uint32_t epoch;      /* the test's thread */
static uint32_t heard[HEARD_MAX];
static uint32_t drained; /* futex: the last epoch that was said, + 1 */
static int listener, pages[3];
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void *new_page(const char *name, int *descriptor, size_t bytes)
{
    *descriptor = memfd_create(name, MFD_CLOEXEC);
    CHECK(*descriptor >= 0 && ftruncate(*descriptor, (off_t)bytes) == 0);
    void *const page = mmap(NULL, GV_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, *descriptor, 0);
    CHECK(page != MAP_FAILED);
    return page;
}

static void say(uint16_t type, void *message, uint16_t size, const int *descriptors, int count)
{
    *(struct gv_message_header *)message =
        (struct gv_message_header){GV_MESSAGE_MAGIC, GV_PROTOCOL_VERSION, type, size};
    struct iovec part = {message, size};
    char control[CMSG_SPACE(sizeof(int) * 3)] = {0};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    if (count != 0) {
        packet.msg_control = control;
        packet.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *const header = CMSG_FIRSTHDR(&packet);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)count);
    }
    CHECK_EQUAL(sendmsg(connection, &packet, MSG_NOSIGNAL), size);
}

static void remove_socket(void) { unlink(address.sun_path); }

static void give_host_memory(const struct gv_back *asked)
{
    struct gv_store_layout layout;
    CHECK_EQUAL(gv_store_layout(ARENA_BYTES, SEGMENT_SLOTS, &layout), 0);
    const uint64_t bytes = asked->count * layout.segment_bytes;
    const int error =
        posix_fallocate(pages[2], (off_t)(layout.data_at + asked->segment * layout.segment_bytes), (off_t)bytes);
    struct gv_backed answer = {.request = asked->request,
                               .status = error == 0 ? 0 : 2, /* CUDA_ERROR_OUT_OF_MEMORY */
                               .missing = error == 0 ? 0 : bytes};
    say(GV_BACKED, &answer, sizeof answer, NULL, 0);
}

static void *serve(void *unused)
{
    (void)unused;
    const int handle = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(handle >= 0);
    remove_socket(); /* there is one client */
    __atomic_store_n(&connection, handle, __ATOMIC_RELEASE);
    union {
        struct gv_message_header header;
        struct gv_hello hello;
        struct gv_drained drained;
        struct gv_back back;
        uint8_t bytes[1024];
    } packet;
    while (recv(handle, &packet, sizeof packet, 0) > 0) {
        CHECK(packet.header.type < HEARD_MAX);
        __atomic_fetch_add(&heard[packet.header.type], 1, __ATOMIC_RELEASE);
        if (packet.header.type == GV_HELLO) {
            struct gv_welcome welcome = {.generation = 1,
                                         .client = 1,
                                         .allowance = packet.hello.device_total,
                                         .quota = packet.hello.device_total,
                                         .arena_bytes = ARENA_BYTES};
            lease->quota_bytes = packet.hello.device_total;
            say(GV_WELCOME, &welcome, sizeof welcome, pages, 3);
        }
        if (packet.header.type == GV_BACK)
            give_host_memory(&packet.back);
        if (packet.header.type == GV_DRAINED) {
            gv_store32(&drained, packet.drained.epoch + 1);
            gv_futex_wake_all(&drained);
        }
    }
    return NULL;
}

void peer_start(void)
{
    pthread_t thread;
    lease = new_page("test-lease", &pages[0], GV_PAGE_BYTES);
    client = new_page("test-client", &pages[1], GV_PAGE_BYTES);
    struct gv_store *const store = new_page("test-arena", &pages[2], ARENA_BYTES);
    CHECK_EQUAL(gv_store_first(ARENA_BYTES, SEGMENT_SLOTS, 0, (const uint8_t[GV_STORE_KEY_BYTES]){1}, store), 0);
    store->alive[0] = 1;
    munmap(store, GV_PAGE_BYTES);
    *lease = (struct gv_lease){
        .magic = GV_LEASE_MAGIC, .version = GV_PAGE_VERSION, .size = sizeof *lease, .generation = 1, .clients = 1};
    *client = (struct gv_client){.magic = GV_CLIENT_MAGIC, .version = GV_PAGE_VERSION, .size = sizeof *client};

    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/gpuvirt-test-%d.sock", (int)getpid());
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    atexit(remove_socket);
    CHECK(listen(listener, 1) == 0);
    setenv("GPUVIRT_SOCKET", address.sun_path, 1);
    setenv("GPUVIRT_JOB", "test", 1);
    CHECK_EQUAL(pthread_create(&thread, NULL, serve, NULL), 0);
    pthread_detach(thread);
}

static void store(uint32_t state)
{
    gv_store32(&lease->word, gv_lease_word(epoch, state));
    gv_futex_wake_all(&lease->word);
}

void peer_grant(uint32_t state)
{
    epoch++;
    store(state);
}

void peer_window(uint32_t microseconds) { __atomic_store_n(&lease->window_us, microseconds, __ATOMIC_RELAXED); }

void peer_drain(void)
{
    struct gv_wake wake;
    store(GV_LEASE_DRAIN);
    say(GV_WAKE, &wake, sizeof wake, NULL, 0);
}

void peer_close(void)
{
    for (int tries = 0; gv_load32(&drained) != epoch + 1; tries++) {
        const uint32_t seen = gv_load32(&drained);
        if (seen != epoch + 1)
            gv_futex_wait(&drained, seen, 100000000);
        CHECK(tries < 300); /* half a minute and more: it does not drain */
    }
    store(GV_LEASE_CLOSED);
}

void peer_revoke(void)
{
    peer_drain();
    peer_close();
}

const struct gv_lease *peer_lease(void) { return lease; }
const struct gv_client *peer_client(void) { return client; }

int peer_allows(void)
{
    const uint32_t word = gv_load32(&lease->word);
    switch (gv_lease_state(word)) {
    case GV_LEASE_OPEN:
    case GV_LEASE_GRANTED:
    case GV_LEASE_STEP:
        return 1;
    case GV_LEASE_DRAIN: /* a call that saw it open may still be on its way, until the client says that none is */
        return gv_load32(&client->drained_epoch) != gv_lease_epoch(word);
    default:
        return 0;
    }
}

uint32_t peer_heard(uint16_t type) { return __atomic_load_n(&heard[type], __ATOMIC_ACQUIRE); }
