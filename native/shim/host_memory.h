/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GPUVIRT_SHIM_HOST_MEMORY_H
#define GPUVIRT_SHIM_HOST_MEMORY_H

#include "cuda_api.h"

void gv_host_memory_context_ended(CUcontext context); /* the driver has freed what was pinned in it */
void gv_host_memory_forget(void);                     /* in the child of a fork */

#endif
