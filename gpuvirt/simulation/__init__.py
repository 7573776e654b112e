# SPDX-License-Identifier: Apache-2.0
"""A host on a simulated clock: the arbiter's own decisions, with models of jobs, GPUs and links around them.

    scenario.py   what a TOML file says        drawing.py   lengths and pauses by chance
    agenda.py     what happens when            engine.py    a GPU that slices time between processes
    worker.py     a process behind its gate    swapping.py  its memory, and the link
    arbiter.py    facts, decide(), actions     host.py      all of it; a run
    measures.py   what came of it              outcome.py   in figures
    replay.py     decide() once more on what a daemon recorded

Everything here is pure and deterministic: the same scenario gives the same figures.
"""
