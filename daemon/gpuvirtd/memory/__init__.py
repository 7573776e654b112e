# SPDX-License-Identifier: Apache-2.0
"""Host memory for what does not fit on the devices. (Device memory is accounted in gpuvirt.arbitration.ledger.)"""
