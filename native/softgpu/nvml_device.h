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

/* A device query that answers with one number; `number` is the device's. */
#define GV_NVML_NUMBER(function, type, value)                                                                          \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, type *answer)                                                 \
    {                                                                                                                  \
        GV_NVML_ENTER();                                                                                               \
        GV_NVML_DEVICE(device, number);                                                                                \
        if (answer == NULL)                                                                                            \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        (void)number;                                                                                                  \
        *answer = (type)(value);                                                                                       \
        return NVML_SUCCESS;                                                                                           \
    }

static inline struct gv_board_device *gv_nvml_device_of(unsigned number) { return &gv_nvml_board()->devices[number]; }
static inline const struct gv_profile *gv_nvml_profile(unsigned number)
{
    return &gv_nvml_device_of(number)->model.profile;
}

#define GV_NVML_SAMPLE_NS 500000000ull /* NVML samples over 1/6 to 1 s */
/* Of the engine over the last sample, 0-100. */
unsigned gv_nvml_utilisation(unsigned number);
/* Models: power follows utilisation at once, temperature slowly. */
unsigned gv_nvml_power_mw(unsigned number, unsigned utilisation);
unsigned gv_nvml_temperature(unsigned number);
unsigned long long gv_nvml_energy_mj(unsigned number);
unsigned gv_nvml_sm_mhz(unsigned number, unsigned utilisation);
/* Microseconds since 1970, of a time on the monotonic clock. */
unsigned long long gv_nvml_wall_us(uint64_t monotonic_ns);
/* Copies a text out; the size must fit it, as with the real library. */
nvmlReturn_t gv_nvml_give(const char *text, char *to, unsigned length);

#endif
