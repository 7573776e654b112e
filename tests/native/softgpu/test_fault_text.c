/* SPDX-License-Identifier: Apache-2.0
 *
 * Fault rules in words, and the states of a checkpoint: the pure parts.
 */
#include "../../../native/softgpu/board_faults.h"
#include "../../../native/softgpu/checkpoint_state.h"
#include "../check.h"

#include <string.h>

static struct gv_fault_rule rule;
static char message[512];

static bool parse(const char *text) { return gv_fault_parse(text, strlen(text), &rule, message, sizeof message); }

static void check_same_in_words(const char *text, const char *expected)
{
    char words[256];
    CHECK(parse(text));
    CHECK(message[0] == '\0');
    gv_fault_format(&rule, words, sizeof words);
    if (strcmp(words, expected) != 0)
        fprintf(stderr, "%s became %s\n", text, words);
    CHECK(strcmp(words, expected) == 0);
    struct gv_fault_rule first = rule;
    CHECK(parse(words));
    CHECK(memcmp(&first, &rule, sizeof rule) == 0);
}

static void test_rules(void)
{
    check_same_in_words("cuMemCreate:3:OUT_OF_MEMORY", "cuMemCreate:3:CUDA_ERROR_OUT_OF_MEMORY");
    check_same_in_words("  cu*:*:CUDA_ERROR_UNKNOWN ", "cu*:*:CUDA_ERROR_UNKNOWN");
    check_same_in_words("cuMemcpyHtoDAsync*:1:delay=200ms", "cuMemcpyHtoDAsync*:1:delay=200000us");
    check_same_in_words("nvmlDeviceGet*:2+:GPU_IS_LOST", "nvmlDeviceGet*:2+:NVML_ERROR_GPU_IS_LOST");
    check_same_in_words("kernel.*:1:ILLEGAL_ADDRESS:pid=12:device=1",
                        "kernel.*:1:CUDA_ERROR_ILLEGAL_ADDRESS:pid=12:device=1");
    check_same_in_words("copy.to_device:*:rate=1M", "copy.to_device:*:rate=1048576");
    check_same_in_words("cuLaunchKernel:7:kill", "cuLaunchKernel:7:kill");
    check_same_in_words("cuLaunchKernel:1+:hang", "cuLaunchKernel:*:hang");
    check_same_in_words("cuInit:1:31415", "cuInit:1:31415");
    CHECK(parse("cuMemAlloc:3+:2"));
    CHECK(rule.first == 3 && rule.last == UINT64_MAX && rule.value == 2 && rule.pid == 0 && rule.device == -1);
}

static void test_what_is_no_rule(void)
{
    static const char *const texts[] = {
        "",
        "cuInit",
        "cuInit:1",
        ":1:hang",
        "cuInit:0:hang",
        "cuInit:x:hang",
        "cuInit:-1:hang",
        "cuInit:1++:hang",
        "cuInit:1:",
        "cuInit:1:0",
        "cuInit:1:SUCCESS",
        "cuInit:1:NVML_ERROR_GPU_IS_LOST",
        "nvmlInit:1:OUT_OF_MEMORY",
        "cuInit:1:delay",
        "cuInit:1:delay=5",
        "cuInit:1:delay=5h",
        "cuInit:1:rate=0",
        "cuInit:1:hang:pid=0",
        "cuInit:1:hang:pid=x",
        "cuInit:1:hang:node=1",
        "cuMemCreat:1:hang",
        "cuMemoryCreate*:1:hang",
        "copy.to_devise:1:hang",
        "kernels.mix:1:hang",
        "\xff\xfe:1:hang",
        "cuInit:1:rate=1M",
        "kernel.mix:1:rate=1M",
        "kernel.mix:1:corrupt",
        "checkpoint.save:1:corrupt",
        "nvmlInit:1:hang:device=0",
        "cuInit:1:99999999999999999999",
        "cu01234567890123456789012345678901234567890123456789012345678901234567890123456789:1:hang"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (parse(texts[i]))
            fprintf(stderr, "'%s' was taken\n", texts[i]);
        CHECK(!parse(texts[i]));
        CHECK(strlen(message) > 20);
    }
    char huge[1000];
    memset(huge, 'x', sizeof huge);
    CHECK(!gv_fault_parse(huge, sizeof huge, &rule, message, sizeof message));
}

/* Every state with every operation. */
static void test_states(void)
{
    enum { RUN, LOCK, DONE, FAIL };
    static const struct {
        int state, operation;
        CUresult allowed;
        int next; /* after success */
    } table[] = {
        {RUN, GV_LOCK, CUDA_SUCCESS, LOCK},
        {RUN, GV_CHECKPOINT, CUDA_ERROR_ILLEGAL_STATE, 0},
        {RUN, GV_RESTORE, CUDA_ERROR_ILLEGAL_STATE, 0},
        {RUN, GV_UNLOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
        {LOCK, GV_LOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
        {LOCK, GV_CHECKPOINT, CUDA_SUCCESS, DONE},
        {LOCK, GV_RESTORE, CUDA_ERROR_ILLEGAL_STATE, 0},
        {LOCK, GV_UNLOCK, CUDA_SUCCESS, RUN},
        {DONE, GV_LOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
        {DONE, GV_CHECKPOINT, CUDA_ERROR_ILLEGAL_STATE, 0},
        {DONE, GV_RESTORE, CUDA_SUCCESS, LOCK},
        {DONE, GV_UNLOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
        {FAIL, GV_LOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
        {FAIL, GV_CHECKPOINT, CUDA_ERROR_ILLEGAL_STATE, 0},
        {FAIL, GV_RESTORE, CUDA_ERROR_OPERATING_SYSTEM, 0},
        {FAIL, GV_UNLOCK, CUDA_ERROR_ILLEGAL_STATE, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const CUprocessState state = (CUprocessState)table[i].state;
        const enum gv_checkpoint_operation operation = (enum gv_checkpoint_operation)table[i].operation;
        CHECK_EQUAL(gv_checkpoint_allowed(state, operation), table[i].allowed);
        if (table[i].allowed != CUDA_SUCCESS)
            continue;
        CHECK_EQUAL(gv_checkpoint_next(state, operation, CUDA_SUCCESS, false), table[i].next);
        CHECK_EQUAL(gv_checkpoint_next(state, operation, CUDA_ERROR_NOT_READY, true), state);
        CHECK_EQUAL(gv_checkpoint_next(state, operation, CUDA_ERROR_OUT_OF_MEMORY, false), FAIL);
    }
    CHECK_EQUAL(gv_checkpoint_allowed(CU_PROCESS_STATE_RUNNING, (enum gv_checkpoint_operation)0),
                CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(gv_checkpoint_allowed(CU_PROCESS_STATE_RUNNING, (enum gv_checkpoint_operation)5),
                CUDA_ERROR_INVALID_VALUE);
}

int main(void)
{
    test_rules();
    test_what_is_no_rule();
    test_states();
    return 0;
}
