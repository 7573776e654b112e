/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 that has every documented function (native/generate/gate_cases.py), runs nothing, and tells of each call that
 * has to do with the gate: shared by the driver and the test that loads it.
 */
#ifndef GPUVIRT_TESTS_WATCHED_DRIVER_H
#define GPUVIRT_TESTS_WATCHED_DRIVER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WATCHED_WORDS = 12 };
#define WATCHED __attribute__((weak, visibility("default")))

/* In the thread that reached the driver. The answer is what the function returns. */
typedef int (*watcher_function)(int number, const uint64_t words[WATCHED_WORDS]);

int watched_reached(int number, const uint64_t words[WATCHED_WORDS]);

/* The first eight bytes of an argument. */
static inline void watched_keep(uint64_t *word, const void *argument, size_t size)
{
    memcpy(word, argument, size < sizeof *word ? size : sizeof *word);
}

#endif
