# SPDX-License-Identifier: Apache-2.0
"""The gRPC interfaces of gpuvirt; `make generate` writes the Python part."""
