# SPDX-License-Identifier: Apache-2.0
"""The cluster: which jobs have GPUs, and on which hosts."""
