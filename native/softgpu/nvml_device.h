/* SPDX-License-Identifier: Apache-2.0
 *
 * The soft NVML: reads the board that the soft driver writes.
 */
#ifndef GPUVIRT_SOFTGPU_NVML_DEVICE_H
#define GPUVIRT_SOFTGPU_NVML_DEVICE_H

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>

#include "board.h"
#include "log.h"

#define GV_EXPORT __attribute__((visibility("default")))

/* First in every exported function, as GV_ENTER() in those of the driver: fault rules can fail, delay or hang it. Calls
 * nest; only the outermost counts. */
nvmlReturn_t gv_nvml_enter(const char *function);
void gv_nvml_leave(const nvmlReturn_t *admitted);
#define GV_NVML_ENTER()                                                                                                \
    __attribute__((cleanup(gv_nvml_leave))) const nvmlReturn_t gv_admitted = gv_nvml_enter(__func__);                  \
    if (gv_admitted != NVML_SUCCESS)                                                                                   \
    return gv_admitted

/* NULL while nvmlInit has not been called. */
struct gv_board *gv_nvml_board(void);
/* SUCCESS and its number, or what is wrong; GPU_IS_LOST when it has fallen off the bus. */
nvmlDevice_t gv_nvml_handle(unsigned number);
nvmlReturn_t gv_nvml_device(nvmlDevice_t device, unsigned *number);

#define GV_NVML_DEVICE(device, number)                                                                                 \
    unsigned number;                                                                                                   \
    do {                                                                                                               \
        const nvmlReturn_t gv_refused = gv_nvml_device(device, &number);                                               \
        if (gv_refused != NVML_SUCCESS)                                                                                \
            return gv_refused;                                                                                         \
    } while (0)

#endif
