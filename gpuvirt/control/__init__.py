# SPDX-License-Identifier: Apache-2.0
"""The only place where Python touches the pages and messages that C defines."""
