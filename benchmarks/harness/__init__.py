# SPDX-License-Identifier: Apache-2.0
"""What the demo and the benchmarks share: a private soft GPU, a private daemon, children that never outlive us."""
