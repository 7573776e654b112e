/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GPUVIRT_TESTS_CHECK_H
#define GPUVIRT_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#ifdef NDEBUG
#error "tests need their assertions"
#endif

/* Ends the test with the place and the condition that did not hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_EQUAL(a, b)                                                                                              \
    do {                                                                                                               \
        const long long left_ = (long long)(a), right_ = (long long)(b);                                               \
        if (left_ != right_) {                                                                                         \
            fprintf(stderr, "%s:%d: %s = %lld, expected %s = %lld\n", __FILE__, __LINE__, #a, left_, #b, right_);      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
