# SPDX-License-Identifier: Apache-2.0
"""gpuvirt: many unchanged CUDA jobs share GPUs."""

__version__ = "0.1.0"
