/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: faults on request at the entry of every function.
 */
#include "inject.h"
#include "nvml_device.h"

#include <pthread.h>

static __thread int depth;
static pthread_once_t asked = PTHREAD_ONCE_INIT;

static void ask_environment(void) { gv_faults_from_environment(gv_board_open(), true); }

nvmlReturn_t gv_nvml_enter(const char *function)
{
    struct gv_board *board = depth++ == 0 ? gv_board_open() : NULL;
    if (board == NULL)
        return NVML_SUCCESS;
    pthread_once(&asked, ask_environment);
    if (__atomic_load_n(&board->faults.count, __ATOMIC_RELAXED) == 0)
        return NVML_SUCCESS;
    const struct gv_verdict verdict = gv_fault_apply(board, function, -1);
    if (verdict.hang != 0)
        gv_fault_hang(board, verdict.hang);
    return (nvmlReturn_t)verdict.error;
}

void gv_nvml_leave(const nvmlReturn_t *admitted)
{
    (void)admitted;
    depth--;
}
