# SPDX-License-Identifier: Apache-2.0
"""Scenarios to begin with: `gpuvirt simulate host NAME` runs one, `gpuvirt simulate scenarios` lists them."""
