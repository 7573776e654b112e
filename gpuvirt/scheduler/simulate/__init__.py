# SPDX-License-Identifier: Apache-2.0
"""Jobs of a trace on a fleet of GPUs, on a simulated clock, with the scheduler's own decisions."""
