# SPDX-License-Identifier: Apache-2.0
"""Any cluster, any work, anything that may happen: what clusters.py looks at after each plan holds."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from clusters import GIB, Cluster, gpus, node
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpuvirt.scheduler.decide.room import OCCUPYING
from gpuvirt.scheduler.state import TIERS, Demand, NodeState, Phase, Program, Queue, Resources, Rules, Spec

QUEUES = ("a", "a/x", "a/y", "b")

demands = st.builds(
    Demand,
    gpus=st.integers(0, 4),
    gpu_thousandths=st.sampled_from([100, 250, 500, 700, 1000]),
    gpu_memory_bytes=st.sampled_from([0, 0, 10 * GIB, 70 * GIB]),
    cpu_thousandths=st.sampled_from([0, 1000, 16_000]),
    memory_bytes=st.sampled_from([0, 1 * GIB, 100 * GIB]),
    gpu_types=st.sampled_from([(), (), ("A100",), ("H100", "A100")]),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    least = draw(st.integers(1, 4))
    return Spec(
        name="job",
        queue=draw(st.sampled_from(QUEUES)),
        user="ann",
        tier=draw(st.sampled_from(TIERS)),
        program=Program(("true",)),
        demand=draw(demands),
        members_min=least,
        members_max=least + draw(st.integers(0, 3)),
        topology=draw(st.sampled_from(["", "", "gpu", "host", "rack"])),
        restarts=draw(st.booleans()),
    )


class Machine(RuleBasedStateMachine):
    """A few hosts."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        hosts = [
            node(
                f"n{index}",
                data.draw(st.integers(0, 4)),
                kind=data.draw(st.sampled_from(["H100", "A100"])),
                rack=data.draw(st.sampled_from(["", "r1", "r2"])),
                swap_bytes=data.draw(st.sampled_from([0, 80 * GIB, 400 * GIB])),
            )
            for index in range(data.draw(st.integers(1, 4)))
        ]
        queues = {
            name: Queue(
                name,
                quota=gpus(data.draw(st.integers(0, 4))),
                limit=data.draw(st.sampled_from([Resources(), gpus(2), gpus(6)])),
                weight=data.draw(st.integers(1, 3)),
            )
            for name in QUEUES
        }
        rules = Rules(
            oversubscribe=data.draw(st.sampled_from([1.0, 1.5])),
            moves=data.draw(st.booleans()),
            hysteresis=data.draw(st.sampled_from([0.0, 60.0])),
            window=600.0,
        )
        self.cluster = Cluster(*hosts, queues=queues, rules=rules)

    @rule(wanted=specs())
    def submit(self, wanted: Spec) -> None:
        if len(self.cluster.jobs) < 12:
            self.cluster.submit(wanted)

    @rule()
    def decide(self) -> None:
        self.cluster.decide()

    @rule()
    def settle(self) -> None:
        self.cluster.settle()

    @rule(seconds=st.sampled_from([1.0, 30.0, 100.0, 1000.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.pass_time(seconds)

    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        running = sorted(name for name, job in self.cluster.jobs.items() if job.phase is Phase.RUNNING)
        if running:
            self.cluster.end(data.draw(st.sampled_from(running)), data.draw(st.integers(0, 1)))

    @rule(data=st.data(), state=st.sampled_from(list(NodeState)))
    def a_host_changes(self, data: st.DataObject, state: NodeState) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.nodes)))
        self.cluster.set_node(name, state=state, patience_until=self.cluster.now + 50)

    @rule(data=st.data(), held=st.booleans())
    def a_user_puts_a_job_aside(self, data: st.DataObject, held: bool) -> None:
        if self.cluster.jobs:
            name = data.draw(st.sampled_from(sorted(self.cluster.jobs)))
            self.cluster.jobs[name] = replace(self.cluster.jobs[name], held=held)

    @invariant()
    def nothing_is_where_it_cannot_be(self) -> None:
        cluster = getattr(self, "cluster", None)
        for job in cluster.jobs.values() if cluster is not None else ():
            assert job.phase not in OCCUPYING or job.members

    def teardown(self) -> None:
        """At rest, with all hosts in use: nobody is taken off and put back for ever, and all are served in the end."""
        cluster = getattr(self, "cluster", None)
        if cluster is None:
            return
        for name in cluster.nodes:
            cluster.set_node(name, state=NodeState.READY)
        cluster.rules = replace(cluster.rules, hysteresis=60.0)
        cluster.turn()
        for job in cluster.jobs.values():
            assert job.phase in (Phase.RUNNING, Phase.PENDING, Phase.SUSPENDED)
        cluster.settle()
        for name in sorted(cluster.jobs):
            if cluster.phase(name) is Phase.RUNNING:
                cluster.end(name)
        for _ in range(40):
            cluster.pass_time(1.0)
            cluster.turn()
            running = [name for name, job in cluster.jobs.items() if job.phase is Phase.RUNNING]
            if not running:
                break
            for name in running:
                cluster.end(name)
        for job in cluster.jobs.values():  # what never ran cannot run here, or has been put aside
            reason = cluster.plan.explanations[job.id].reason
            alone = Cluster(*cluster.nodes.values(), queues=cluster.queues, rules=cluster.rules)
            alone.submit(job.spec, "alone")
            alone.turn()
            assert job.held or alone.phase("alone") is Phase.PENDING, f"{job.id} was never served: {reason}"


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
