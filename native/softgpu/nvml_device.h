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

/* NULL while nvmlInit has not been called. */
struct gv_board *gv_nvml_board(void);
/* SUCCESS and its number, or what is wrong. */
nvmlReturn_t gv_nvml_device(nvmlDevice_t device, unsigned *number);

#define GV_NVML_DEVICE(device, number)                                                                                 \
    unsigned number;                                                                                                   \
    do {                                                                                                               \
        const nvmlReturn_t gv_refused = gv_nvml_device(device, &number);                                               \
        if (gv_refused != NVML_SUCCESS)                                                                                \
            return gv_refused;                                                                                         \
    } while (0)

#endif
