/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.h without the macros that rename functions to their newest version: our exports are the ABI names themselves.
 */
#ifndef GPUVIRT_SHIM_CUDA_API_H
#define GPUVIRT_SHIM_CUDA_API_H

#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#define GV_EXPORT __attribute__((visibility("default")))

#endif
