/* SPDX-License-Identifier: Apache-2.0
 *
 * Both ABIs of cuGetProcAddress: ask the real driver first with the caller's own arguments, then put our function in place of
 * the pointer by (name, version, flags). Never by base name, never by pointer value. Every other answer goes through as it is.
 */
#include <string.h>

#include "real_driver.h"
#include "symbols.h"
#include "unknown.h"

struct row {
    const char *name;
    int version;
    int variant; /* 0 plain, 1 ptds, 2 ptsz */
    int symbol;  /* index into gv_real */
};

/* Sorted by name, variant, version. */
#define GV_ROW(name, version, variant, index) {name, version, variant, index},
static const struct row rows[] = {
#include "proc_rows.inc"
};
#undef GV_ROW
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

static int first_row(const char *name)
{
    int low = 0, high = ROW_COUNT;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (strcmp(rows[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The row with the highest version <= the asked one, of the per-thread twin if there is one and it is asked for. */
static const struct row *find_row(const char *name, int version, cuuint64_t flags)
{
    const struct row *plain = NULL, *twin = NULL;
    for (int i = first_row(name); i < ROW_COUNT && strcmp(rows[i].name, name) == 0; i++) {
        if (rows[i].version > version)
            continue;
        if (rows[i].variant == 0)
            plain = &rows[i];
        else
            twin = &rows[i];
    }
    const int per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
    return per_thread && twin != NULL ? twin : plain;
}

/*
 * Asked for a version above our headers', the driver may answer with a newer ABI than we know. It is ours to replace only if
 * the driver gives the same function for the newest version that we do know.
 */
static int same_abi(const char *name, const void *found, cuuint64_t flags)
{
    void *known = NULL;
    const CUresult result = REAL(cuGetProcAddress_v2)(name, &known, GV_HEADER_VERSION, flags, NULL);
    return result == CUDA_SUCCESS && known == found;
}

/*
 * `*function` is the driver's answer. It stays where our headers do not say which function that is; the status word is the
 * driver's in any case, because what we put in its place is the same function.
 */
static void substitute(const char *name, void **function, int version, cuuint64_t flags)
{
    const cuuint64_t known = CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    if (name == NULL || function == NULL || *function == NULL)
        return;
    const struct row *row = find_row(name, version, flags);
    if (flags & ~known)
        gv_unknown_add(name, version, GV_UNKNOWN_FLAGS);
    else if (row == NULL)
        gv_unknown_add(name, version, GV_UNKNOWN_NAME);
    else if (version > GV_HEADER_VERSION && !same_abi(name, *function, flags))
        gv_unknown_add(name, version, GV_UNKNOWN_VERSION);
    else if (gv_symbols[row->symbol].answer != NULL)
        *function = gv_symbols[row->symbol].answer;
}

/* Both open the driver with their caller's address, not through REAL(): it may be a thread of the driver that asks. */
GV_EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    gv_open_driver(__builtin_return_address(0));
    const CUresult result = REAL(cuGetProcAddress)(symbol, pfn, cudaVersion, flags);
    if (result == CUDA_SUCCESS)
        substitute(symbol, pfn, cudaVersion, flags);
    return result;
}

GV_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                                       CUdriverProcAddressQueryResult *symbolStatus)
{
    gv_open_driver(__builtin_return_address(0));
    const CUresult result = REAL(cuGetProcAddress_v2)(symbol, pfn, cudaVersion, flags, symbolStatus);
    if (result == CUDA_SUCCESS)
        substitute(symbol, pfn, cudaVersion, flags);
    return result;
}
