# SPDX-License-Identifier: Apache-2.0
"""What a scheduler decides when hosts come and go, and where jobs can be moved."""

from __future__ import annotations

from dataclasses import replace

from clusters import Cluster, kinds, node, spec

from gpuvirt.scheduler.actions import Move, Requeue, Resume, Suspend
from gpuvirt.scheduler.state import NodeState, Phase, Rules


def test_a_host_that_is_lost_and_one_that_is_silent() -> None:
    cluster = Cluster(node("a", 1), node("b", 1))
    cluster.submit(spec())
    cluster.turn()
    host = cluster.on("j1")[0]
    cluster.set_node(host, state=NodeState.UNKNOWN)
    cluster.submit(spec())
    cluster.submit(spec())
    cluster.once()
    assert cluster.phase("j1") is Phase.RUNNING and host not in cluster.on("j2")
    cluster.end("j2")
    cluster.end("j3")
    cluster.set_node(host, state=NodeState.LOST)
    assert [type(one) for one in cluster.once().actions] == [Requeue]
    cluster.turn()
    assert cluster.phase("j1") is Phase.RUNNING and cluster.on("j1") != [host]
    assert cluster.jobs["j1"].members[0].attempt == 2


def test_a_suspended_job_whose_host_is_silent_waits_and_says_so() -> None:
    cluster = Cluster(node("a", 1))
    cluster.submit(spec(), "low")
    cluster.turn()
    cluster.submit(spec(tier="premium"), "high")
    cluster.turn()
    cluster.end("high")
    cluster.set_node("a", state=NodeState.UNKNOWN)
    assert not cluster.once().actions
    assert cluster.plan.explanations["low"].reason == "its host a cannot be used now"


def test_emptying_a_host_with_moves_and_without() -> None:
    cluster = Cluster(node("a", 1), node("b", 1), rules=Rules(moves=True))
    cluster.submit(spec())
    cluster.turn()
    host = cluster.on("j1")[0]
    cluster.set_node(host, state=NodeState.DRAINING)
    assert isinstance(cluster.once().actions[0], Move)
    assert cluster.on("j1") != [host]

    cluster = Cluster(node("a", 1), node("b", 1))
    cluster.submit(spec())
    cluster.submit(spec(restarts=False))
    cluster.turn()
    for name in ("a", "b"):
        cluster.set_node(name, state=NodeState.DRAINING, patience_until=cluster.now + 30)
    assert not cluster.once().actions and cluster.plan.again_at == cluster.now + 30
    cluster.pass_time(30)
    assert [type(one) for one in cluster.once().actions] == [Requeue, Suspend]


def test_who_is_put_aside_by_its_user_stays_aside() -> None:
    cluster = Cluster(node("a", 1))
    cluster.submit(spec())
    cluster.turn()
    cluster.jobs["j1"] = replace(cluster.jobs["j1"], held=True)
    assert isinstance(cluster.once().actions[0], Suspend)
    assert not cluster.once().actions
    assert cluster.plan.explanations["j1"].reason == "its user has suspended it"
    cluster.jobs["j1"] = replace(cluster.jobs["j1"], held=False)
    assert isinstance(cluster.once().actions[0], Resume)


def test_with_moves_a_suspended_job_goes_on_elsewhere() -> None:
    cluster = Cluster(node("a", 1), node("b", 1), rules=Rules(moves=True))
    cluster.submit(spec(), "low")
    cluster.turn()
    other = next(name for name in "ab" if name not in cluster.on("low"))
    cluster.submit(spec(tier="premium"), "p1")
    cluster.turn()
    cluster.submit(spec(tier="premium"), "p2")
    cluster.turn()
    assert cluster.phase("low") is Phase.SUSPENDED
    cluster.end("p1" if cluster.on("p1") == [other] else "p2")
    cluster.once()
    assert kinds(cluster) == [("Move", "low")] and cluster.on("low") == [other]


def test_room_in_pieces_is_put_together_by_moving_jobs() -> None:
    cluster = Cluster(node("a", 4), node("b", 4), rules=Rules(moves=True))
    cluster.submit(spec(gpus=3), "x1")
    cluster.submit(spec(gpus=2), "x2")
    cluster.turn()
    cluster.submit(spec(), "small")
    cluster.turn()
    cluster.end("x1")
    assert cluster.on("small") != cluster.on("x2")
    cluster.pass_time(100)
    cluster.submit(spec(gpus=4), "large")
    cluster.once()
    assert sorted(kinds(cluster)) == [("Move", "small"), ("Start", "large")]
    assert cluster.on("small") == cluster.on("x2") != cluster.on("large")
    assert cluster.jobs["small"].suspensions == 0


def test_no_more_is_moved_than_will_be_used() -> None:
    cluster = Cluster(node("a", 4), node("b", 4), node("c", 4), rules=Rules(moves=True))
    for name in ("x1", "x2", "x3"):
        cluster.submit(spec(gpus=3), name)
    cluster.turn()
    cluster.pass_time(100)
    cluster.submit(spec(gpus=2), "large")
    assert not cluster.once().actions
