/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-256 (FIPS 180-4): names of cache files, whose contents are executed.
 */
#ifndef GPUVIRT_SOFTGPU_SHA256_H
#define GPUVIRT_SOFTGPU_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct gv_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};

void gv_sha256_start(struct gv_sha256 *hash);
void gv_sha256_add(struct gv_sha256 *hash, const void *data, size_t bytes);
/* The length goes in first: two fields never run into each other. */
void gv_sha256_add_field(struct gv_sha256 *hash, const void *data, size_t bytes);
void gv_sha256_end(struct gv_sha256 *hash, char hex[65]);

#endif
