# SPDX-License-Identifier: Apache-2.0
"""The host's agent: a scheduler starts, changes, suspends and ends jobs here, over gRPC (gpuvirt/v1/agent.proto)."""
