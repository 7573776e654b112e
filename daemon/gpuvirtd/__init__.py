# SPDX-License-Identifier: Apache-2.0
"""The host daemon: decides which job holds each GPU of this host and what is resident in device memory."""
