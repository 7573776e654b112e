/* SPDX-License-Identifier: Apache-2.0
 *
 * The same work as the kernels of soft_gpu_kernels.cu as plain C loops on one core: loops saxpy|reduce|sum|matmul|memcpy REPEATS
 *
 * Prints the nanoseconds of each repetition, one a line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LENGTH = 1 << 24, SIDE = 512, TILE = 16 };

static float *x, *y, *a, *b, *c;
static volatile float result; /* so that no loop is found useless */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void saxpy(void)
{
    for (int i = 0; i < LENGTH; i++)
        y[i] = 2.5f * x[i] + y[i];
    result = y[1];
}

static void reduce(void) /* blocks of 256 by a tree, as the kernel does it: the same sums in the same order */
{
    static float part[256];
    float total = 0.0f;
    for (int block = 0; block < LENGTH / 256; block++) {
        memcpy(part, x + (size_t)block * 256, sizeof(part));
        for (int half = 128; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                part[i] += part[i + half];
        total += part[0];
    }
    result = total;
}

static void sum(void) /* blocks of 256 one after the other: nobody shuffles on a CPU */
{
    float total = 0.0f;
    for (int block = 0; block < LENGTH / 256; block++) {
        float part = 0.0f;
        for (int i = 0; i < 256; i++)
            part += x[(size_t)block * 256 + i];
        total += part;
    }
    result = total;
}

static void matmul(void) /* tiled like the kernel */
{
    memset(c, 0, sizeof(float) * SIDE * SIDE);
    for (int i0 = 0; i0 < SIDE; i0 += TILE)
        for (int j0 = 0; j0 < SIDE; j0 += TILE)
            for (int k0 = 0; k0 < SIDE; k0 += TILE)
                for (int i = i0; i < i0 + TILE; i++)
                    for (int k = k0; k < k0 + TILE; k++)
                        for (int j = j0; j < j0 + TILE; j++)
                            c[i * SIDE + j] += a[i * SIDE + k] * b[k * SIDE + j];
    result = c[SIDE + 1];
}

static void copy(void)
{
    memcpy(y, x, sizeof(float) * LENGTH);
    result = y[1];
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } works[] = {{"saxpy", saxpy}, {"reduce", reduce}, {"sum", sum}, {"matmul", matmul}, {"memcpy", copy}};
    const int repeats = argc > 2 ? atoi(argv[2]) : 0;
    x = malloc(sizeof(float) * LENGTH);
    y = malloc(sizeof(float) * LENGTH);
    a = malloc(sizeof(float) * SIDE * SIDE);
    b = malloc(sizeof(float) * SIDE * SIDE);
    c = malloc(sizeof(float) * SIDE * SIDE);
    if (repeats < 1 || !x || !y || !a || !b || !c) {
        fprintf(stderr, "usage: loops saxpy|reduce|sum|matmul|memcpy REPEATS\n");
        return 2;
    }
    for (int i = 0; i < LENGTH; i++) {
        x[i] = (float)(i % 1000) * 0.001f;
        y[i] = 1.0f;
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i] = (float)(i % 7) * 0.1f;
        b[i] = (float)(i % 11) * 0.1f;
    }
    for (size_t work = 0; work < sizeof(works) / sizeof(works[0]); work++) {
        if (strcmp(argv[1], works[work].name) != 0)
            continue;
        works[work].run(); /* page faults are over after this */
        for (int repeat = 0; repeat < repeats; repeat++) {
            const uint64_t began = now_ns();
            works[work].run();
            printf("%llu\n", (unsigned long long)(now_ns() - began));
        }
        return 0;
    }
    fprintf(stderr, "loops: unknown work %s\n", argv[1]);
    return 2;
}
