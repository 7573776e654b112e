# SPDX-License-Identifier: Apache-2.0
"""Where a scheduler's state is: in memory (simulator, tests), SQLite (one scheduler) or etcd (several)."""
