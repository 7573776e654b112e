# SPDX-License-Identifier: Apache-2.0
"""What a scheduler decides, case by case."""

from __future__ import annotations

from dataclasses import replace

from clusters import GIB, Cluster, gpus, kinds, node, spec

from gpuvirt.scheduler.actions import Grow, Shrink, Start, Suspend
from gpuvirt.scheduler.decide.promise import counted, credit, fraction
from gpuvirt.scheduler.state import Demand, NodeState, Phase, Queue, Rules

NO_WAIT = Rules(hysteresis=0.0)


def test_a_job_starts_where_it_leaves_the_least() -> None:
    cluster = Cluster(node("a", 4), node("b", 2))
    cluster.submit(spec(gpus=2))
    cluster.once()
    assert cluster.on("j1") == ["b"]


def test_parts_of_gpus_are_put_together() -> None:
    cluster = Cluster(node("a", 4))
    for _ in range(4):
        cluster.submit(spec(thousandths=250))
    cluster.submit(spec(gpus=3))
    cluster.once()
    assert {uuid for name in ("j1", "j2", "j3", "j4") for uuid in cluster.jobs[name].members[0].gpus} == {"GPU-a-0"}
    assert cluster.phase("j5") is Phase.RUNNING


def test_device_memory_is_a_dimension_of_its_own() -> None:
    demand = Demand(1, 250, 60 * GIB)
    full = Cluster(node("a", 1))
    for _ in range(2):
        full.submit(spec(demand=demand))
    assert [type(one) for one in full.once().actions] == [Start]
    assert "GPU memory 40 GiB short" in full.plan.explanations["j2"].misses[0].lacks
    over = Cluster(node("a", 1), rules=Rules(oversubscribe=2.0))
    for _ in range(3):
        over.submit(spec(demand=demand))
    assert [type(one) for one in over.once().actions] == [Start, Start]


def test_what_is_promised_beyond_device_memory_has_room_to_swap() -> None:
    cluster = Cluster(node("a", 1, swap_bytes=30 * GIB), rules=Rules(oversubscribe=2.0))
    for _ in range(2):
        cluster.submit(spec(demand=Demand(1, 250, 60 * GIB)))
    cluster.once()
    assert kinds(cluster) == [("Start", "j1")]
    assert "swap" in cluster.plan.explanations["j2"].misses[0].lacks


def test_a_gang_starts_whole_or_not_at_all() -> None:
    cluster = Cluster(node("a", 2), node("b", 2))
    cluster.submit(spec(gpus=1))
    cluster.submit(spec(members_min=4, members_max=4))
    cluster.once()
    assert cluster.phase("j2") is Phase.PENDING
    assert "4 times 1 GPU at once" in cluster.plan.explanations["j2"].reason
    cluster.end("j1")
    cluster.once()
    assert sorted(cluster.on("j2")) == ["a", "a", "b", "b"]


def test_a_gang_stays_in_its_domain() -> None:
    hosts = [node(f"{rack}{i}", 2, rack=rack) for rack in "xy" for i in range(2)]
    cluster = Cluster(*hosts)
    cluster.submit(spec(gpus=2), "first")
    cluster.submit(spec(members_min=4, members_max=4, topology="rack"), "gang")
    cluster.submit(spec(members_min=4, members_max=4, topology="host"), "wide")
    cluster.once()
    assert {name[0] for name in cluster.on("gang")} == {"y"}
    assert "in one host" in cluster.plan.explanations["wide"].reason


def test_a_job_that_grows_stays_in_its_domain() -> None:
    cluster = Cluster(node("x0", 1, rack="x"), node("x1", 1, rack="x"), node("y0", 1, rack="y"), rules=NO_WAIT)
    cluster.submit(spec(members_min=2, members_max=3, topology="rack"))
    cluster.turn()
    assert sorted(cluster.on("j1")) == ["x0", "x1"]


def test_a_gang_without_a_wish_is_still_put_close_together() -> None:
    hosts = [node(f"{rack}{i}", 2, rack=rack) for rack in "xy" for i in range(2)]
    cluster = Cluster(*hosts)
    cluster.submit(spec(members_min=3, members_max=3))
    cluster.once()
    assert len({name[0] for name in cluster.on("j1")}) == 1


def test_members_on_one_gpu() -> None:
    cluster = Cluster(node("a", 2))
    cluster.submit(spec(thousandths=300, members_min=3, members_max=3, topology="gpu"))
    cluster.submit(spec(thousandths=300, members_min=4, members_max=4, topology="gpu"))
    cluster.once()
    assert len({uuid for member in cluster.jobs["j1"].members for uuid in member.gpus}) == 1
    assert cluster.phase("j2") is Phase.PENDING


def test_types_of_gpus() -> None:
    cluster = Cluster(node("a", 4, kind="A100"), node("b", 1))
    cluster.submit(spec(demand=Demand(1, gpu_types=("H100", "H200"))))
    cluster.submit(spec(demand=Demand(1, gpu_types=("H100",))))
    cluster.once()
    assert cluster.on("j1") == ["b"]
    assert any("of the 1 H100" in miss.lacks for miss in cluster.plan.explanations["j2"].misses)


def test_a_higher_tier_takes_the_gpus_of_a_lower_one_and_its_work_is_kept() -> None:
    cluster = Cluster(node("a", 1))
    cluster.submit(spec(tier="basic"), "low")
    cluster.turn()
    cluster.pass_time(5)
    cluster.submit(spec(tier="premium"), "high")
    cluster.once()
    assert kinds(cluster) == [("Suspend", "low"), ("Start", "high")]
    cluster.pass_time(5)
    cluster.end("high")
    cluster.once()
    assert kinds(cluster) == [("Resume", "low")]
    assert cluster.jobs["low"].attempts == 1


def test_who_cannot_be_kept_begins_anew_and_who_must_not_is_left_alone() -> None:
    cluster = Cluster(node("a", 1, swap_bytes=0), node("b", 1, swap_bytes=0))
    cluster.submit(spec(restarts=False), "once")
    cluster.turn()
    cluster.submit(spec(), "again")
    cluster.turn()
    cluster.submit(spec(tier="premium"), "high")
    cluster.once()
    assert kinds(cluster) == [("Requeue", "again"), ("Start", "high")]
    cluster.submit(spec(tier="premium"), "higher")
    cluster.once()
    assert cluster.phase("higher") is Phase.PENDING
    assert cluster.phase("once") is Phase.RUNNING


def test_no_more_is_taken_than_needed() -> None:
    cluster = Cluster(node("a", 4))
    for name in ("b1", "b2", "b3", "b4"):
        cluster.submit(spec(), name)
    cluster.turn()
    cluster.submit(spec(gpus=2, tier="standard"), "high")
    cluster.once()
    assert len([one for one in cluster.plan.actions if isinstance(one, Suspend)]) == 2


def test_a_guarantee_that_cannot_be_kept_is_not_taken_on() -> None:
    cluster = Cluster(node("a", 2))
    for name in ("p1", "p2", "p3"):
        cluster.submit(spec(tier="premium"), name)
    cluster.once()
    assert [cluster.jobs[name].guaranteed for name in ("p1", "p2", "p3")] == [True, True, False]
    cluster.end("p1")
    cluster.once()
    assert cluster.jobs["p3"].guaranteed


def test_a_lost_host_takes_guarantees_back_from_the_last() -> None:
    cluster = Cluster(node("a", 1), node("b", 1))
    cluster.submit(spec(tier="premium"), "first")
    cluster.turn()
    cluster.pass_time(1)
    cluster.submit(spec(tier="premium"), "last")
    cluster.turn()
    host = cluster.on("first")[0]
    cluster.set_node(host, state=NodeState.LOST)
    cluster.once()
    assert (cluster.jobs["first"].guaranteed, cluster.jobs["last"].guaranteed) == (True, False)
    cluster.turn()
    assert cluster.phase("first") is Phase.RUNNING


def test_two_standard_jobs_have_their_part_on_one_gpu_each_in_turn() -> None:
    rules = Rules(fractions={"premium": 0.95, "standard": 0.45, "basic": 0.0}, window=600.0)
    cluster = Cluster(node("a", 1), rules=rules)
    for name in ("s1", "s2"):
        cluster.submit(spec(tier="standard"), name)
    for _ in range(300):
        cluster.once()
        cluster.pass_time(10)
    had = [fraction(counted(cluster.jobs[name], cluster.now, rules)) for name in ("s1", "s2")]
    assert all(0.45 <= one <= 0.55 for one in had), had
    assert max(job.suspensions for job in cluster.jobs.values()) < 30


def test_basic_jobs_get_what_credit_leaves() -> None:
    rules = Rules(fractions={"premium": 0.95, "standard": 0.5, "basic": 0.0}, window=600.0)
    cluster = Cluster(node("a", 1), rules=rules)
    cluster.submit(spec(tier="standard"), "paid")
    cluster.turn()
    cluster.pass_time(200)
    paid = cluster.jobs["paid"]
    assert credit(replace(paid, served=counted(paid, cluster.now, rules)), rules) == 100
    cluster.submit(spec(), "free")
    cluster.once()
    assert cluster.phase("free") is Phase.PENDING, "a tier keeps its GPU while only lower ones wait"


def test_queues_share_by_weight() -> None:
    cluster = Cluster(node("a", 8), queues={"x": Queue("x", weight=3), "y": Queue("y")})
    for index in range(16):
        cluster.submit(spec(queue="xy"[index % 2]))
    cluster.once()
    running = [job.spec.queue for job in cluster.jobs.values() if job.phase is Phase.RUNNING]
    assert (running.count("x"), running.count("y")) == (6, 2)


def test_shares_go_down_the_hierarchy() -> None:
    queues = {name: Queue(name) for name in ("a", "b", "a/x", "a/y")}
    cluster = Cluster(node("n", 8), queues=queues)
    for queue in ("a/x", "a/y", "b"):
        for _ in range(8):
            cluster.submit(spec(queue=queue))
    cluster.once()
    running = [job.spec.queue for job in cluster.jobs.values() if job.phase is Phase.RUNNING]
    assert [running.count(queue) for queue in ("a/x", "a/y", "b")] == [2, 2, 4]


def test_a_limit_of_a_queue_above_holds_for_those_below() -> None:
    cluster = Cluster(node("n", 8), queues={"a": Queue("a", limit=gpus(3)), "a/x": Queue("a/x")})
    for _ in range(5):
        cluster.submit(spec(queue="a/x"))
    cluster.once()
    assert [job.phase for job in cluster.jobs.values()].count(Phase.RUNNING) == 3
    assert "queue 'a' is at its limit of GPUs" in cluster.plan.explanations["j4"].reason


def test_a_quota_is_taken_back_from_who_uses_more_than_its_own() -> None:
    queues = {"mine": Queue("mine", quota=gpus(2)), "yours": Queue("yours", quota=gpus(2))}
    cluster = Cluster(node("n", 4), queues=queues, rules=NO_WAIT)
    for name in ("m1", "m2", "m3", "m4"):
        cluster.submit(spec(queue="mine"), name)
        cluster.turn()
        cluster.pass_time(1)
    for name in ("y1", "y2", "y3"):
        cluster.submit(spec(queue="yours"), name)
    cluster.turn()
    running = [job.spec.queue for job in cluster.jobs.values() if job.phase is Phase.RUNNING]
    assert sorted(running) == ["mine", "mine", "yours", "yours"]


def test_little_gpu_time_goes_before_much_of_it_but_not_at_once() -> None:
    cluster = Cluster(node("n", 1), rules=Rules(hysteresis=60.0))
    cluster.submit(spec(), "old")
    cluster.turn()
    cluster.pass_time(3700)
    cluster.submit(spec(), "new")
    cluster.once()
    assert kinds(cluster) == [("Suspend", "old"), ("Start", "new")]
    cluster.end("new")
    cluster.once()
    cluster.pass_time(30)
    cluster.submit(spec(), "newer")
    cluster.once()
    assert not cluster.plan.actions and cluster.plan.again_at == cluster.now + 30
    cluster.pass_time(30)
    cluster.once()
    assert kinds(cluster) == [("Suspend", "old"), ("Start", "newer")]


def test_small_jobs_do_not_pass_a_large_one_for_ever_and_nothing_stands_idle_for_it() -> None:
    cluster = Cluster(node("n", 4))
    for name in ("s1", "s2"):
        cluster.submit(spec(gpus=2), name)
    cluster.turn()
    cluster.pass_time(1)
    cluster.submit(spec(gpus=4), "large")
    for name in ("t1", "t2"):
        cluster.pass_time(1)
        cluster.submit(spec(gpus=2), name)
    cluster.end("s1")
    cluster.turn()
    assert (cluster.phase("large"), cluster.phase("t1")) == (Phase.PENDING, Phase.RUNNING)
    cluster.pass_time(10)
    cluster.end("s2")
    cluster.turn()
    assert cluster.phase("t2") is Phase.RUNNING, "t1 has hardly begun"
    cluster.pass_time(60)
    cluster.once()
    assert kinds(cluster) == [("Suspend", "t2"), ("Suspend", "t1"), ("Start", "large")]
    cluster.end("large")
    cluster.turn()
    assert {cluster.phase("t1"), cluster.phase("t2")} == {Phase.RUNNING}


def test_who_came_later_is_not_taken_off_where_that_would_not_do() -> None:
    cluster = Cluster(node("n", 4), rules=NO_WAIT)
    cluster.submit(spec(gpus=2), "old")
    cluster.turn()
    cluster.pass_time(1)
    cluster.submit(spec(gpus=4), "large")
    cluster.pass_time(1)
    cluster.submit(spec(gpus=2), "new")
    for _ in range(5):
        cluster.turn()
        cluster.pass_time(100)
    assert cluster.jobs["new"].suspensions == 0


def test_a_job_grows_into_what_nobody_wants_and_gives_it_back() -> None:
    cluster = Cluster(node("n", 4), rules=NO_WAIT)
    cluster.submit(spec(members_min=1, members_max=8), "wide")
    cluster.turn()
    assert len(cluster.jobs["wide"].members) == 4
    cluster.submit(spec(gpus=2), "other")
    plan = cluster.once()
    assert [type(one) for one in plan.actions] == [Shrink, Start]
    assert [member.rank for member in cluster.jobs["wide"].members] == [0, 1]
    cluster.end("other")
    plan = cluster.once()
    assert isinstance(plan.actions[0], Grow)
    before = {(one.rank, one.attempt) for one in cluster.jobs["wide"].members}
    cluster.submit(spec(gpus=2), "another")
    cluster.once()
    cluster.end("another")
    cluster.once()
    again = {(one.rank, one.attempt) for one in cluster.jobs["wide"].members}
    assert len(again) == 4 and len(again & before) == 2, "a rank that comes again has a number that it never had"
