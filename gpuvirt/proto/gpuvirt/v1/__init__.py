# SPDX-License-Identifier: Apache-2.0
"""Version 1. Fields may be added; what is here keeps its number and its meaning."""
