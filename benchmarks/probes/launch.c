/* SPDX-License-Identifier: Apache-2.0
 *
 * What a launch costs the program: launch SAMPLES PER_SAMPLE [WARM_UP_SAMPLES]
 *
 * Prints {"launch_ns": [...], "round_trip_ns": [...]}: per sample, nanoseconds of one asynchronous launch of an empty kernel
 * (mean over PER_SAMPLE), and of a launch with the wait for its end. The wait between samples is not counted.
 */
#include "driver.h"

static const char ptx[] = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry nothing() { ret; }\n";

static void print(const char *name, const double *values, int count, const char *end)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.1f", i ? ", " : "", values[i]);
    printf("]%s", end);
}

int main(int argc, char **argv)
{
    const int samples = argc > 1 ? atoi(argv[1]) : 0, per_sample = argc > 2 ? atoi(argv[2]) : 0;
    const int warm_up = argc > 3 ? atoi(argv[3]) : 5;
    if (samples < 1 || per_sample < 1) {
        fprintf(stderr, "usage: launch SAMPLES PER_SAMPLE [WARM_UP_SAMPLES]\n");
        return 2;
    }
    void *function, *stream;
    void *const module = open_driver(ptx);
    check(function_get(&function, module, "nothing"), "cuModuleGetFunction");
    check(stream_create(&stream, 1), "cuStreamCreate");
    double *const one_way = calloc((size_t)samples, sizeof(double)), *const round_trip =
                                                                         calloc((size_t)samples, sizeof(double));
    if (one_way == NULL || round_trip == NULL)
        return 3;
    for (int sample = -warm_up; sample < samples; sample++) {
        uint64_t began = now_ns();
        for (int i = 0; i < per_sample; i++)
            check(launch(function, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
        const uint64_t launched = now_ns() - began;
        check(stream_wait(stream), "cuStreamSynchronize");
        began = now_ns();
        for (int i = 0; i < 16; i++) {
            check(launch(function, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
            check(stream_wait(stream), "cuStreamSynchronize");
        }
        if (sample >= 0) {
            one_way[sample] = (double)launched / per_sample;
            round_trip[sample] = (double)(now_ns() - began) / 16;
        }
    }
    printf("{");
    print("launch_ns", one_way, samples, ", ");
    print("round_trip_ns", round_trip, samples, "}\n");
    return 0;
}
