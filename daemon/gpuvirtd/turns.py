# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, as people set it: the policy of each GPU, the weights of jobs. Kept in the state database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gpuvirt.arbitration import events
from gpuvirt.arbitration.policies import POLICIES
from gpuvirt.arbitration.policies.words import priority_name
from gpuvirt.arbitration.standing import unheeded
from gpuvirt.errors import RefusedError
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.identity import Process
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job

if TYPE_CHECKING:
    from gpuvirtd.host import Host

CONFIGURED = "configured"  # in place of a name: what the configuration says


class Weight(msgspec.Struct, tag_field="op", tag="weight", forbid_unknown_fields=True):
    """Another weight for a job; without one it is only shown."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class SetPolicy(msgspec.Struct, tag_field="op", tag="policy", forbid_unknown_fields=True):
    """Another policy for a GPU (an index, or a UUID; null: all); without a name they are only shown."""

    gpu: int | str | None = None
    name: str | None = None


def restore_policies(host: Host) -> None:
    """At the start: what was set while a daemon ran before holds on; the rest is as configured."""
    kept = host.state.policies()
    for arbiter in host.arbiters.values():
        name = kept.get(arbiter.device.uuid, "")
        arbiter.gpu.policy = name if name in POLICIES else configured(host, arbiter)


class Owners:
    """Who has a GPU for itself (policy `exclusive`): also after a restart, and while it is idle.

    A job that does not come back has no clients, and one without clients keeps nobody out.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._kept: dict[str, str | None] = dict(host.state.gpu_owners())  # by UUID, as in the database
        for arbiter in host.arbiters.values():
            arbiter.gpu.owner = self._kept.get(arbiter.device.uuid)
            arbiter.keep_owner = self.keep

    def keep(self, arbiter: Arbiter) -> None:
        """To be called after each decision, before anybody hears of it."""
        device = arbiter.device.uuid
        owner = arbiter.gpu.owner if arbiter.gpu.policy == "exclusive" else None
        if owner != self._kept.get(device):
            self._kept[device] = owner
            self._host.write("put_gpu_owner", device, owner)


def configured(host: Host, arbiter: Arbiter) -> str:
    """The policy that the configuration gives to a GPU."""
    own = host.policy.time_policies
    return own.get(arbiter.device.uuid) or own.get(str(arbiter.device.index)) or host.policy.time_policy


def policy_answer(host: Host, peer: Process, request: SetPolicy) -> dict[str, Any]:
    """Shows or changes policies. Raises RefusedError."""
    found = _gpus(host, request.gpu)
    if request.name is not None:
        if peer.uid not in (0, os.getuid()):
            raise RefusedError("only root and the user of gpuvirtd may change how GPUs are shared", "ask one of them")
        if request.name not in POLICIES and request.name != CONFIGURED:
            raise RefusedError(
                f"there is no policy '{request.name}'",
                f"known: {', '.join(POLICIES)}; {CONFIGURED} for what the file says",
            )
        for arbiter in found:
            _change(host, arbiter, request.name)
    return {"policies": [policy_row(host, arbiter) for arbiter in found]}


def _gpus(host: Host, gpu: int | str | None) -> list[Arbiter]:
    found = [
        arbiter
        for arbiter in host.arbiters.values()
        if gpu is None or str(gpu) in (str(arbiter.device.index), arbiter.device.uuid)
    ]
    if not found:
        raise RefusedError(f"there is no GPU '{gpu}'", "see: gpuvirt gpus")
    return found


def _change(host: Host, arbiter: Arbiter, name: str) -> None:
    before = arbiter.gpu.policy
    host.write("put_policy", arbiter.device.uuid, None if name == CONFIGURED else name)
    name = configured(host, arbiter) if name == CONFIGURED else name
    if name == before:
        return
    events.set_policy(arbiter.gpu, name, host.clock.now())
    arbiter.log.info("policy_changed", before=before, now=name)
    arbiter.turn()


def policy_row(host: Host, arbiter: Arbiter) -> dict[str, Any]:
    """As the admin socket tells it."""
    policy = POLICIES[arbiter.gpu.policy]
    return {
        "gpu": arbiter.device.index,
        "uuid": arbiter.device.uuid,
        "policy": policy.name,
        "summary": policy.summary,
        "configured": configured(host, arbiter),
        "owner": arbiter.gpu.owner if policy.name == "exclusive" else None,
    }


def weight_answer(host: Host, job: Job, weight: int | None) -> dict[str, Any]:
    """Shows or changes the weight of a job, from now on."""
    if weight is not None and weight != job.weight:
        text = f"weight: {job.weight} -> {weight}"
        now = host.clock.now()
        for arbiter in host.arbiters.values():
            events.set_weight(arbiter.gpu, job.id, weight, now)
        job.weight = weight
        host.record(job)
        job.events.add(Kind.TIME, text)
        host.log.info("weight_changed", job=job.id, weight=weight)
        for arbiter in host.arbiters.values():
            arbiter.turn()
    return {"standing": standing_row(job), "notes": notes(host, job)}


def standing_row(job: Job) -> dict[str, Any]:
    """What policies heed of a job, as the admin socket tells it."""
    return {
        "job": job.id,
        "weight": job.weight,
        "priority": priority_name(job.standing.priority),
        "tier": job.standing.tier or None,
        "deadline_s": job.standing.due_in / 1e9 or None,
    }


def notes(host: Host, job: Job) -> list[str]:
    """What of it makes no difference here: on the GPUs that it uses, or on none if it uses none yet."""
    used = {member.arbiter.gpu.policy for member in job.members.values()}
    return unheeded(job.standing, used or {arbiter.gpu.policy for arbiter in host.arbiters.values()})
