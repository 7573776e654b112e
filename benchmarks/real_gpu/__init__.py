# SPDX-License-Identifier: Apache-2.0
"""Answers, on a GPU machine, the questions that only a real driver can answer. Started by benchmarks/real_gpu.sh."""
