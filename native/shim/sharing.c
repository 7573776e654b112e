/* SPDX-License-Identifier: Apache-2.0
 *
 * Program threads put requests into a list and wait; the control thread sends them and takes the answers.
 */
#include "sharing.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "blocks.h"
#include "ipc.h"
#include "log.h"
#include "memory.h"
#include "real_driver.h"
#include "session.h"

enum {
    STEP_NS = 100 * 1000 * 1000,
    STEPS = 300,
    STEPS_HEARD = 3
}; /* how long an answer may take: a daemon may be restarting */

enum state { QUEUED, SENT, ANSWERED };

struct request {
    struct request *next;
    uint32_t state; /* enum state, changed under lock; a futex of the waiting thread */
    int waited_for; /* by a thread, on whose stack it lies; else it is freed when it was sent */
    uint32_t number;
    union {
        struct gv_message_header header;
        struct gv_share share;
        struct gv_fetch fetch;
        struct gv_charge charge;
    } message;
    uint16_t type, size;
    int descriptors[GV_SHARE_MAX], count; /* to send */
    int received[GV_SHARE_MAX];
    CUresult status;
    uint32_t reports; /* gv_memory.reports when it was sent */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct request *requests; /* the oldest first; under lock */
static uint32_t last_number;     /* under lock */
static uint64_t nonce;           /* under lock */

void gv_sharing_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    requests = NULL;
    nonce = 0;
}

uint64_t gv_sharing_nonce(void)
{
    pthread_mutex_lock(&lock);
    if (nonce == 0 && getrandom(&nonce, sizeof nonce, GRND_NONBLOCK) != (ssize_t)sizeof nonce)
        nonce = gv_now_ns() ^ (uint64_t)getpid() << 40; /* early at boot: as good as unique */
    nonce |= 1;
    const uint64_t value = nonce;
    pthread_mutex_unlock(&lock);
    return value;
}

static void append(struct request *request)
{
    struct request **link = &requests;
    while (*link != NULL)
        link = &(*link)->next;
    request->next = NULL;
    *link = request;
}

static void take_out(const struct request *request)
{
    for (struct request **link = &requests; *link != NULL; link = &(*link)->next)
        if (*link == request) {
            *link = request->next;
            return;
        }
}

/* Waits for the daemon's answer. `number` is set where the message has its own. 0: there was none. */
static int is_answered(struct request *request, uint32_t *number, int steps)
{
    request->waited_for = 1;
    for (int i = 0; i < GV_SHARE_MAX; i++)
        request->received[i] = -1;
    pthread_mutex_lock(&lock);
    request->number = *number = ++last_number == 0 ? ++last_number : last_number;
    append(request);
    pthread_mutex_unlock(&lock);
    for (int step = 0; step < steps && __atomic_load_n(&request->state, __ATOMIC_ACQUIRE) != ANSWERED; step++) {
        gv_session_poke(GV_POKE_SHARE);
        const uint32_t state = __atomic_load_n(&request->state, __ATOMIC_ACQUIRE);
        if (state != ANSWERED)
            gv_futex_wait(&request->state, state, STEP_NS);
    }
    pthread_mutex_lock(&lock); /* whoever answers has left it */
    const int answered = request->state == ANSWERED;
    take_out(request);
    pthread_mutex_unlock(&lock);
    return answered;
}

static CUresult ask(struct request *request, uint32_t *number)
{
    if (is_answered(request, number, STEPS))
        return request->status;
    gv_log("gpuvirtd does not answer: memory cannot be shared with other processes now");
    return CUDA_ERROR_SYSTEM_NOT_READY;
}

CUresult gv_sharing_offer(uint64_t first, uint32_t count, const int *descriptors)
{
    struct request request = {.type = GV_SHARE, .size = sizeof request.message.share, .count = (int)count};
    request.message.share = (struct gv_share){.count = count, .nonce = gv_sharing_nonce(), .first = first};
    memcpy(request.descriptors, descriptors, count * sizeof *descriptors);
    return ask(&request, &request.message.share.request);
}

/* A SHARE that nobody waits for. Takes the descriptors. */
static void announce(uint64_t first, uint32_t count, const int *descriptors, int withdrawn)
{
    struct request *const request = calloc(1, sizeof *request);
    if (request != NULL) {
        request->type = GV_SHARE;
        request->size = sizeof request->message.share;
        request->count = withdrawn ? 0 : (int)count;
        request->message.share = (struct gv_share){
            .count = count, .nonce = gv_sharing_nonce(), .first = first, .withdrawn = (uint32_t)withdrawn};
        if (!withdrawn)
            memcpy(request->descriptors, descriptors, count * sizeof *descriptors);
        pthread_mutex_lock(&lock);
        append(request);
        pthread_mutex_unlock(&lock);
        gv_session_poke(GV_POKE_SHARE);
    }
    for (uint32_t i = 0; request == NULL && !withdrawn && i < count; i++)
        close(descriptors[i]);
}

void gv_sharing_withdraw(uint64_t first, uint32_t count) { announce(first, count, NULL, 1); }

CUresult gv_sharing_fetch(uint32_t pid, uint64_t of, uint64_t first, uint32_t count, int *descriptors)
{
    struct request request = {.type = GV_FETCH, .size = sizeof request.message.fetch};
    request.message.fetch = (struct gv_fetch){.pid = pid, .nonce = of, .first = first, .count = count};
    CUresult result = ask(&request, &request.message.fetch.request);
    int missing = 0;
    for (uint32_t i = 0; i < count; i++)
        missing |= request.received[i] < 0;
    if (result == CUDA_SUCCESS && missing)
        result = CUDA_ERROR_MAP_FAILED; /* no descriptors left in this process */
    for (uint32_t i = 0; i < GV_SHARE_MAX; i++) {
        const int wanted = result == CUDA_SUCCESS && i < count;
        if (!wanted && request.received[i] >= 0)
            close(request.received[i]);
        if (i < count)
            descriptors[i] = wanted ? request.received[i] : -1;
    }
    return result;
}

#define HANDLES (1ull << 63) /* extents are numbered from below */

CUresult gv_sharing_offer_handle(uint64_t number, int descriptor)
{
    return gv_sharing_offer(HANDLES | number, 1, &descriptor);
}

void gv_sharing_withdraw_handle(uint64_t number) { gv_sharing_withdraw(HANDLES | number, 1); }

int gv_sharing_is_ours(int descriptor)
{
    struct request request = {
        .type = GV_FETCH, .size = sizeof request.message.fetch, .descriptors = {descriptor}, .count = 1};
    return ask(&request, &request.message.fetch.request) == CUDA_SUCCESS;
}

int gv_sharing_charge(uint64_t charged, uint64_t asked, int can_wait)
{
    struct request request = {.type = GV_CHARGE, .size = sizeof request.message.charge};
    request.message.charge = (struct gv_charge){.charged_bytes = charged, .asked_bytes = asked};
    return is_answered(&request, &request.message.charge.request, can_wait ? STEPS : STEPS_HEARD) &&
           request.status == CUDA_SUCCESS;
}

/* A report that was sent after the question may have given back what the answer grants: ask again. */
static int is_void(const struct request *request)
{
    return request->type == GV_CHARGE && request->reports != gv_memory.reports;
}

/* --- control thread ------------------------------------------------------------------------------------------------------- */

void gv_sharing_send(gv_sharing_sender *send)
{
    for (;;) {
        struct request copy;
        struct request *found;
        pthread_mutex_lock(&lock);
        for (found = requests; found != NULL && found->state != QUEUED; found = found->next)
            ;
        if (found != NULL) {
            __atomic_store_n(&found->state, SENT, __ATOMIC_RELEASE);
            found->reports = gv_memory.reports;
            copy = *found;
            if (!found->waited_for) {
                take_out(found);
                free(found);
            }
        }
        pthread_mutex_unlock(&lock);
        if (found == NULL)
            return;
        /* A connection that breaks here: whoever waits is sent again after the next WELCOME, and what is offered is told anew. */
        send(copy.type, &copy.message, copy.size, copy.descriptors, copy.count);
        for (int i = 0; i < copy.count && !copy.waited_for; i++)
            close(copy.descriptors[i]);
    }
}

void gv_sharing_answered(const struct gv_shared *answer, int *descriptors)
{
    if (answer->request == 0) {
        gv_imports_orphaned(answer->pid, answer->nonce, answer->first, answer->count);
        return;
    }
    pthread_mutex_lock(&lock);
    for (struct request *request = requests; request != NULL; request = request->next) {
        if (request->number != answer->request || request->state != SENT)
            continue;
        if (is_void(request)) {
            __atomic_store_n(&request->state, QUEUED, __ATOMIC_RELEASE);
            gv_session_poke(GV_POKE_SHARE);
            break;
        }
        request->status = (CUresult)answer->status;
        if (request->type == GV_CHARGE && answer->status == CUDA_SUCCESS)
            gv_memory_granted(request->message.charge.charged_bytes);
        for (int i = 0; i < GV_SHARE_MAX; i++) {
            request->received[i] = descriptors[i];
            descriptors[i] = -1;
        }
        __atomic_store_n(&request->state, ANSWERED, __ATOMIC_RELEASE);
        gv_futex_wake_all(&request->state);
        break;
    }
    pthread_mutex_unlock(&lock);
    if (answer->status != CUDA_SUCCESS && answer->reason[0] != '\0')
        gv_log("%.*s", (int)sizeof answer->reason, answer->reason);
}

void gv_sharing_reattached(void)
{
    pthread_mutex_lock(&lock);
    for (struct request *request = requests; request != NULL; request = request->next)
        if (request->state == SENT)
            __atomic_store_n(&request->state, QUEUED, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    for (uint64_t index = 0; index < gv_memory.extents_touched; index++) {
        pthread_mutex_lock(&gv_memory.lock);
        const struct gv_piece *const extent = &gv_memory.extents[index];
        const int offered = extent->kept && extent->mapped && extent->live != 0;
        const CUmemGenericAllocationHandle handle = extent->handle;
        pthread_mutex_unlock(&gv_memory.lock);
        int descriptor = -1;
        if (offered && REAL(cuMemExportToShareableHandle)(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                                          0) == CUDA_SUCCESS)
            announce(index, 1, &descriptor, 0);
    }
    pthread_mutex_lock(&gv_memory.lock);
    for (const struct gv_block *block = gv_memory.blocks; block != NULL; block = block->next) {
        const int descriptor = block->exported < 0 ? -1 : fcntl(block->exported, F_DUPFD_CLOEXEC, 0);
        if (descriptor >= 0)
            announce(HANDLES | block->serial, 1, &descriptor, 0);
    }
    pthread_mutex_unlock(&gv_memory.lock);
    gv_session_poke(GV_POKE_SHARE);
}
