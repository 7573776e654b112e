# SPDX-License-Identifier: Apache-2.0
"""What the C part was built from."""

from __future__ import annotations

from gpuvirt.control._control_block import lib

HEADER_VERSION: int = lib.GV_HEADER_VERSION  # CUDA_VERSION of the headers of the shim, for example 13050
