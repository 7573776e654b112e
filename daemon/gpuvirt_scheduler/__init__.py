# SPDX-License-Identifier: Apache-2.0
"""gpuvirt-scheduler: the service of a cluster or region. It acts on what gpuvirt.scheduler decides."""
