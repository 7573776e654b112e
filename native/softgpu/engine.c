/* SPDX-License-Identifier: Apache-2.0
 *
 * The contexts of this process on the engine. A turn of the process gives each context that wants it one slice; then the
 * engine goes to the next process. See engine.h.
 */
#include "engine.h"

#include <pthread.h>

enum { SLOTS = 16 };
#define DEBT_MOST_NS 500000000ull /* so that nobody pays for ever for one endless block */

/* A context. Slots are found by address and used again when nothing runs or waits in them. */
struct slot {
    const void *context;
    int wanting; /* threads that wait to enter */
    uint64_t debt_ns;
};

/* All but the atomics under `lock`. */
static struct engine {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held;      /* the board's word was ours when we last looked */
    bool acquiring; /* a thread waits for it */
    bool yielding;  /* the slice of `current` ends when its threads have stopped */
    bool lingering; /* no thread is inside, but one of `current` is about to come back */
    int active;     /* threads of `current` inside */
    int slices_left;
    struct slot *current; /* valid while held */
    struct slot slots[SLOTS];
    uint64_t rivals_since_ns;
    _Atomic int rivals; /* slots other than `current` with threads that want to enter */
    _Atomic uint64_t slice_end_ns;
} engines[GV_BOARD_DEVICES] = {
    [0 ... GV_BOARD_DEVICES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}};

static uint64_t slice_ns(void) { return gv_driver.board->slice_us * 1000ull; }

/* More contexts than slots share the last one. */
static struct slot *slot_of(struct engine *engine, const void *context)
{
    struct slot *unused = NULL;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &engine->slots[i];
        if (slot->context == context)
            return slot;
        if (slot->wanting == 0 && slot != engine->current && (unused == NULL || slot->debt_ns < unused->debt_ns))
            unused = slot;
    }
    if (unused == NULL)
        return &engine->slots[SLOTS - 1];
    *unused = (struct slot){.context = context};
    return unused;
}

static int count_wanting(const struct engine *engine, const struct slot *except)
{
    int count = 0;
    for (int i = 0; i < SLOTS; i++)
        count += &engine->slots[i] != except && engine->slots[i].wanting > 0;
    return count;
}

static void want(struct engine *engine, struct slot *slot, int change)
{
    slot->wanting += change;
    const int rivals = count_wanting(engine, engine->held ? engine->current : NULL);
    if (rivals > 0 && atomic_load(&engine->rivals) == 0)
        engine->rivals_since_ns = gv_board_now_ns();
    atomic_store(&engine->rivals, rivals);
}

/* The least that a context has overrun its slices by. */
static uint64_t least_debt(const struct engine *engine)
{
    uint64_t debt = UINT64_MAX;
    for (int i = 0; i < SLOTS; i++)
        if (engine->slots[i].wanting > 0 && engine->slots[i].debt_ns < debt)
            debt = engine->slots[i].debt_ns;
    return debt != UINT64_MAX || engine->current == NULL ? debt : engine->current->debt_ns;
}

/* The slot after `current` that wants to run; who has overrun a whole slice pays by being passed over. When all have, other
 * processes may do so (least_debt tells them). NULL: none wants. */
static struct slot *next_slot(struct engine *engine)
{
    const int from = engine->current != NULL ? (int)(engine->current - engine->slots) : 0;
    const bool pass = least_debt(engine) < slice_ns();
    for (int step = 1; step <= 2 * SLOTS; step++) {
        struct slot *slot = &engine->slots[(from + step) % SLOTS];
        if (slot->wanting == 0)
            continue;
        if (!pass || slot->debt_ns < slice_ns())
            return slot;
        slot->debt_ns -= slice_ns();
    }
    return NULL;
}

static void start_slice(struct engine *engine, struct slot *slot)
{
    const uint64_t now = gv_board_now_ns(), slice = slice_ns();
    const uint64_t paid = slot->debt_ns < slice ? slot->debt_ns : slice;
    slot->debt_ns -= paid;
    engine->current = slot;
    engine->yielding = engine->lingering = false;
    atomic_store_explicit(&engine->slice_end_ns, now + slice - paid, memory_order_relaxed);
    want(engine, slot, 0); /* counts rivals anew */
    pthread_cond_broadcast(&engine->changed);
}

/* What ran beyond the slice while others waited is owed. */
static void charge_overrun(struct engine *engine, const struct gv_board_device *device)
{
    const bool processes = gv_board_engine_wanted(device), contexts = atomic_load(&engine->rivals) > 0;
    if (!processes && !contexts)
        return;
    uint64_t since = processes ? __atomic_load_n(&device->engine_waited_since_ns, __ATOMIC_RELAXED) : UINT64_MAX;
    if (contexts && engine->rivals_since_ns < since)
        since = engine->rivals_since_ns;
    const uint64_t end = atomic_load_explicit(&engine->slice_end_ns, memory_order_relaxed);
    const uint64_t now = gv_board_now_ns(), from = since > end ? since : end;
    if (now > from)
        engine->current->debt_ns += now - from;
    if (engine->current->debt_ns > DEBT_MOST_NS)
        engine->current->debt_ns = DEBT_MOST_NS;
}

/* Nobody is inside: the next context of ours, or the next process. `more`: the last one inside is about to come back. */
static void move_on(struct engine *engine, int number, bool more)
{
    const struct gv_board_device *device = gv_board_device(number);
    charge_overrun(engine, device);
    struct slot *next = next_slot(engine);
    if (gv_turn_is_ours(number) && next != NULL && --engine->slices_left > 0) {
        start_slice(engine, next);
        return;
    }
    const int record = gv_turn_next(number, next != NULL);
    if (next != NULL && record == gv_driver.record && gv_turn_is_ours(number)) {
        gv_turn_account(number, gv_board_now_ns());
        engine->slices_left = count_wanting(engine, NULL);
        start_slice(engine, next);
        return;
    }
    /* In line again before the others can run: else they would find themselves alone until this thread gets a processor. */
    if (next != NULL || more)
        gv_turn_want(number, least_debt(engine), (uint32_t)count_wanting(engine, NULL));
    gv_turn_give(number, record == gv_driver.record ? -1 : record);
    engine->held = engine->yielding = engine->lingering = false;
    pthread_cond_broadcast(&engine->changed);
}

/* Waits for the board with the lock free, so that threads of the same process can line up behind. */
static void take_turn(struct engine *engine, int number)
{
    const uint64_t debt = least_debt(engine);
    const int contexts = count_wanting(engine, NULL);
    bool alone;
    engine->acquiring = true;
    pthread_mutex_unlock(&engine->lock);
    const uint64_t paid = gv_turn_take(number, debt, (uint32_t)contexts, &alone);
    pthread_mutex_lock(&engine->lock);
    engine->acquiring = false;
    engine->held = true;
    alone = alone && count_wanting(engine, NULL) == 1;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t *owed = &engine->slots[i].debt_ns;
        *owed = alone || *owed < paid ? 0 : *owed - paid;
    }
    engine->slices_left = count_wanting(engine, NULL);
    start_slice(engine, next_slot(engine)); /* we want it: there is one */
}

/* Under the lock; the caller is counted in slot->wanting. */
static void come_in(struct engine *engine, struct slot *slot, int number)
{
    while (!(engine->held && engine->current == slot && !engine->yielding)) {
        if (!engine->held && !engine->acquiring)
            take_turn(engine, number);
        else
            pthread_cond_wait(&engine->changed, &engine->lock);
    }
    engine->lingering = false;
    engine->active++;
    want(engine, slot, -1);
}

void gv_engine_enter(int device, const void *context)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    struct slot *slot = slot_of(engine, context);
    if (engine->held && engine->current == slot && !engine->yielding) {
        engine->lingering = false;
        engine->active++;
    } else {
        want(engine, slot, 1);
        come_in(engine, slot, device);
    }
    pthread_mutex_unlock(&engine->lock);
}

void gv_engine_join(int device, const void *context)
{
    (void)context; /* that of the thread inside */
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    engine->active++;
    pthread_mutex_unlock(&engine->lock);
}

bool gv_engine_help(int device, const void *context, bool (*over)(void *data), void *data)
{
    struct engine *engine = &engines[device];
    bool joined = false;
    pthread_mutex_lock(&engine->lock);
    while (!over(data)) {
        if (engine->held && engine->current->context == context && !engine->yielding) {
            engine->lingering = false;
            engine->active++;
            joined = true;
            break;
        }
        pthread_cond_wait(&engine->changed, &engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    return joined;
}

void gv_engine_poke(int device)
{
    pthread_mutex_lock(&engines[device].lock);
    pthread_cond_broadcast(&engines[device].changed);
    pthread_mutex_unlock(&engines[device].lock);
}

void gv_engine_leave(int device, const void *context, bool more)
{
    (void)context;
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    if (--engine->active == 0) {
        if (more && !engine->yielding && !gv_engine_slice_over(device))
            engine->lingering = true;
        else
            move_on(engine, device, more);
    }
    pthread_mutex_unlock(&engine->lock);
}

void gv_engine_abandon(int device, const void *context)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    if (engine->held && engine->lingering && engine->active == 0 && engine->current->context == context)
        move_on(engine, device, false);
    else if (!engine->held && !engine->acquiring && count_wanting(engine, NULL) == 0)
        gv_turn_want_not(device);
    pthread_mutex_unlock(&engine->lock);
}

bool gv_engine_slice_over(int number)
{
    if (!gv_turn_is_ours(number))
        return true;
    if (!gv_board_engine_wanted(gv_board_device(number)) &&
        atomic_load_explicit(&engines[number].rivals, memory_order_relaxed) == 0)
        return false;
    return gv_board_now_ns() >= atomic_load_explicit(&engines[number].slice_end_ns, memory_order_relaxed);
}

void gv_engine_yield(int device, const void *context)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    struct slot *slot = slot_of(engine, context);
    engine->yielding = true;
    want(engine, slot, 1);
    if (--engine->active == 0)
        move_on(engine, device, false);
    come_in(engine, slot, device);
    pthread_mutex_unlock(&engine->lock);
}
