# SPDX-License-Identifier: Apache-2.0
"""The command `gpuvirt`: one module a verb, loaded when it is called."""
