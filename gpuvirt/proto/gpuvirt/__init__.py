# SPDX-License-Identifier: Apache-2.0
"""Package gpuvirt of the protos: one folder per version."""
