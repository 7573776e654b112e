# SPDX-License-Identifier: Apache-2.0
"""Bills: GPU time, waiting time, overrun and switches of every job and tenant, exact through crashes.

account.py    one job on one GPU: sums, and the stretch of time that goes on
meter.py      keeps the accounts of one GPU by what its arbiter decides; pure
live.py       the accounts in a file that is shared memory: outlives kill -9 of the daemon
database.py   what was used when, by minutes and hours, in SQLite
books.py      brings these together: after a restart, once a minute, when somebody asks
"""
