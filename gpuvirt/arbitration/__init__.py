# SPDX-License-Identifier: Apache-2.0
"""PURE decisions about the GPUs of one host: who holds the lease, for how long, and what is resident.

Nothing in this package does I/O, reads a clock or starts a thread. Facts go in (`events`), actions and the next
wake-up come out (`lease.decide`). The daemon and a simulator use the same code.

    facts.py       what is known: clients, contenders (one job on one GPU), the GPU
    events.py      folds what was heard into the facts
    lease.py       decide(gpu, now): the lease state machine
    gang.py        a job on several GPUs, as one of them sees it
    together.py    what the decisions on one GPU must know of the others
    room.py        makes room in device memory, brings a contender's memory back
    ledger.py      allowances against capacity; residue
    victims.py     whom to evict, and how far
    policies/      who is next: fair, ...
    fairshare.py   charged time and virtual time of tenants and their jobs
    quantum.py     for how long; how long an idle holder is left alone
"""
