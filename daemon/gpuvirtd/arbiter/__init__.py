# SPDX-License-Identifier: Apache-2.0
"""Carries out what gpuvirt.arbitration decides: lease pages, messages, timers."""
