/* SPDX-License-Identifier: Apache-2.0
 *
 * Running a plan. The thread that starts it takes nodes as they get ready; for those that it cannot take, helpers come, one
 * after the other, so that branches run side by side and a host function may wait for another branch. Beyond MOST_HELPERS in the
 * process, branches wait their turn. A plan whose nodes come one after the other needs neither lock nor helper.
 */
#include "graph_plan.h"
#include "launch.h"
#include "model.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_HELPERS = 64 };

struct run {
    const struct gv_plan *plan;
    struct gv_stream *stream;
    struct gv_operation *const *armed;
    /* Under `lock`. */
    uint32_t *missing; /* of each node: those before it that have not ended */
    uint32_t *ready, first_ready, ready_end;
    uint32_t left;    /* nodes that have not ended */
    uint32_t helpers; /* at work on it: it is on its starter's stack */
    pthread_cond_t changed;
    struct run *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER;
static struct run *runs; /* all that are under way with branches */
static int idle_helpers, helper_count, calls;
static bool on_the_way; /* a helper was called and has not come yet */

/* A branch runs where its own thread runs: nothing in it is armed. */
static void run_conditional(const struct gv_plan_node *node, struct gv_stream *stream)
{
    uint32_t value = atomic_load(&node->condition->value);
    switch (node->condition_type) {
    case CU_GRAPH_COND_TYPE_IF:
        if (value != 0)
            gv_plan_run(node->branches[0], stream, NULL);
        else if (node->branch_count > 1)
            gv_plan_run(node->branches[1], stream, NULL);
        break;
    case CU_GRAPH_COND_TYPE_WHILE:
        while (value != 0 && gv_context_state(stream->context) == CUDA_SUCCESS) {
            gv_plan_run(node->branches[0], stream, NULL);
            value = atomic_load(&node->condition->value);
        }
        break;
    case CU_GRAPH_COND_TYPE_SWITCH:
        if (value < node->branch_count)
            gv_plan_run(node->branches[value], stream, NULL);
        break;
    }
}

static void run_node(const struct gv_plan_node *node, struct gv_stream *stream, struct gv_operation *const *armed)
{
    if (node->child != NULL) {
        gv_plan_run(node->child, stream, armed != NULL ? armed + node->armed : NULL);
        return;
    }
    if (node->condition != NULL) {
        run_conditional(node, stream);
        return;
    }
    if (node->work == NULL || !node->enabled || node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
        node->type == CU_GRAPH_NODE_TYPE_MEM_FREE)
        return;
    struct gv_operation *work = node->armed != GV_NOT_ARMED ? armed[node->armed] : node->work;
    struct gv_context *context = work->context;
    if (work->context_id != context->id || (!work->kind->always && gv_context_state(context) != CUDA_SUCCESS))
        return;
    gv_model_link_leave(0);
    const CUresult result = work->kind->run(work, context == stream->context ? stream : context->legacy);
    if (result != CUDA_SUCCESS)
        gv_context_fail(context, result);
    if (work->kind->ended != NULL)
        work->kind->ended(work);
}

static void unlist(struct run *run)
{
    for (struct run **link = &runs; *link != NULL; link = &(*link)->next)
        if (*link == run) {
            *link = run->next;
            break;
        }
}

static struct run *run_in_need(void)
{
    struct run *run = runs;
    while (run != NULL && run->first_ready == run->ready_end)
        run = run->next;
    return run;
}

static void *helper(void *unused);

/* Under the lock: when a node is ready that nobody is about to take, one helper is called. It calls the next one when it
 * finds more, so that short nodes are not worth many threads, and long ones get a thread each. */
static void call_if_needed(void)
{
    if (on_the_way || run_in_need() == NULL)
        return;
    if (idle_helpers > 0) {
        on_the_way = true;
        calls++;
        pthread_cond_signal(&wanted);
    } else if (helper_count < MOST_HELPERS && gv_start_thread(helper, NULL, "softgpu-graph")) {
        on_the_way = true;
        helper_count++;
    }
}

/* Under the lock, which is open while the node runs. */
static void take_one(struct run *run)
{
    const uint32_t number = run->ready[run->first_ready++];
    const struct gv_plan_node *node = &run->plan->nodes[number];
    call_if_needed();
    pthread_mutex_unlock(&lock);
    run_node(node, run->stream, run->armed);
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < node->after_count; i++)
        if (--run->missing[node->after[i]] == 0)
            run->ready[run->ready_end++] = node->after[i];
    if (--run->left == 0 || run->first_ready < run->ready_end)
        pthread_cond_signal(&run->changed);
}

static void *helper(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        on_the_way = false;
        for (struct run *run; (run = run_in_need()) != NULL;) {
            run->helpers++;
            take_one(run);
            run->helpers--;
            if (run->left == 0)
                pthread_cond_signal(&run->changed);
        }
        idle_helpers++;
        while (calls == 0)
            pthread_cond_wait(&wanted, &lock);
        calls--;
        idle_helpers--;
    }
    return NULL;
}

static void run_parallel(struct run *run)
{
    const struct gv_plan *plan = run->plan;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < plan->count; i++) {
        run->missing[i] = plan->nodes[i].before_count;
        if (run->missing[i] == 0)
            run->ready[run->ready_end++] = i;
    }
    run->next = runs;
    runs = run;
    while (run->left > 0 || run->helpers > 0) {
        if (run->first_ready < run->ready_end)
            take_one(run);
        else
            pthread_cond_wait(&run->changed, &lock);
    }
    unlist(run);
    pthread_mutex_unlock(&lock);
}

void gv_plan_run(const struct gv_plan *plan, struct gv_stream *stream, struct gv_operation *const *armed)
{
    struct run run = {.plan = plan, .stream = stream, .armed = armed, .left = plan->count};
    if (!plan->linear)
        run.missing = malloc((size_t)plan->count * 2 * sizeof *run.missing);
    if (run.missing == NULL) { /* or no memory: any topological order is a valid one */
        for (uint32_t i = 0; i < plan->count; i++)
            run_node(&plan->nodes[plan->order[i]], stream, armed);
        return;
    }
    run.ready = run.missing + plan->count;
    pthread_cond_init(&run.changed, NULL);
    run_parallel(&run);
    pthread_cond_destroy(&run.changed);
    free(run.missing);
}

bool gv_plan_copy_armed(const struct gv_plan *plan, struct gv_operation **armed)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct gv_plan_node *node = &plan->nodes[i];
        if (node->child != NULL) {
            if (!gv_plan_copy_armed(node->child, armed + node->armed))
                return false;
        } else if (node->armed != GV_NOT_ARMED) {
            struct gv_operation *copy = malloc(node->work->kind->bytes);
            if (copy == NULL)
                return false;
            memcpy(copy, node->work, node->work->kind->bytes);
            gv_operation_made(copy, node->work->context);
            armed[node->armed] = copy;
        }
    }
    return true;
}

void gv_plan_arm(const struct gv_plan *plan, struct gv_operation **armed)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct gv_plan_node *node = &plan->nodes[plan->order[i]];
        if (node->child != NULL)
            gv_plan_arm(node->child, armed + node->armed);
        else if (node->armed != GV_NOT_ARMED)
            armed[node->armed]->kind->arm(armed[node->armed]);
    }
}
