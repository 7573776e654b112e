/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGetProcAddress from the generated table: of a name's rows, the one with the highest version that is not above the asked
 * one; with the per-thread flag the twin for it if there is one.
 */
#include "driver.h"
#include "header_version.h"

#include <string.h>

extern void *const gv_soft_functions[]; /* generated: by index of the symbol */

struct row {
    const char *name;
    int version;
    int variant; /* 0 plain, 1 ptds, 2 ptsz */
    int index;
};

/* Sorted by name, then variant, then version. */
static const struct row rows[] = {
#define GV_ROW(name, version, variant, index) {name, version, variant, index},
#include "proc_rows.inc"
#undef GV_ROW
};
enum { ROWS = sizeof rows / sizeof *rows };

/* First row of the name, or ROWS. */
static int find_name(const char *name)
{
    int low = 0, high = ROWS;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (strcmp(rows[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ROWS && strcmp(rows[low].name, name) == 0 ? low : ROWS;
}

static CUresult look_up(const char *symbol, void **pfn, int version, cuuint64_t flags,
                        CUdriverProcAddressQueryResult *status)
{
    const cuuint64_t known = CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    if (symbol == NULL || pfn == NULL || flags & ~known || version > GV_HEADER_VERSION)
        return CUDA_ERROR_INVALID_VALUE;
    *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    *pfn = NULL;
    const struct row *best = NULL;
    const bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    for (int i = find_name(symbol); i < ROWS && strcmp(rows[i].name, symbol) == 0; i++) {
        *status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
        if (rows[i].version > version || (rows[i].variant != 0 && !per_thread))
            continue;
        /* Later rows of the same kind are newer; a twin is as good as the plain row of the same version. */
        if (best == NULL || rows[i].version >= best->version)
            best = &rows[i];
    }
    if (best != NULL) {
        *status = CU_GET_PROC_ADDRESS_SUCCESS;
        *pfn = gv_soft_functions[best->index];
    }
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                                       CUdriverProcAddressQueryResult *symbolStatus)
{
    GV_ENTER_ANY();
    CUdriverProcAddressQueryResult status;
    const CUresult result = look_up(symbol, pfn, cudaVersion, flags, &status);
    if (result == CUDA_SUCCESS && symbolStatus != NULL)
        *symbolStatus = status;
    return result;
}

GV_EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    GV_ENTER_ANY();
    CUdriverProcAddressQueryResult status;
    return look_up(symbol, pfn, cudaVersion, flags, &status);
}
