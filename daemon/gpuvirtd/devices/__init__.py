# SPDX-License-Identifier: Apache-2.0
"""The GPUs of this host: which driver, which devices, how full."""
