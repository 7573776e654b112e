from gpuvirt.proto.gpuvirt.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Demand(_message.Message):
    __slots__ = ("gpus", "gpu_thousandths", "gpu_memory_bytes", "cpu_thousandths", "memory_bytes", "gpu_types")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_THOUSANDTHS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_THOUSANDTHS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPES_FIELD_NUMBER: _ClassVar[int]
    gpus: int
    gpu_thousandths: int
    gpu_memory_bytes: int
    cpu_thousandths: int
    memory_bytes: int
    gpu_types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, gpus: _Optional[int] = ..., gpu_thousandths: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ..., cpu_thousandths: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_types: _Optional[_Iterable[str]] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("name", "queue", "user", "tier", "program", "demand", "members_min", "members_max", "estimate_seconds", "topology", "regions", "standing", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_MIN_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_MAX_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    queue: str
    user: str
    tier: str
    program: _types_pb2.Program
    demand: Demand
    members_min: int
    members_max: int
    estimate_seconds: float
    topology: str
    regions: _containers.RepeatedScalarFieldContainer[str]
    standing: _types_pb2.Standing
    limits: _types_pb2.Limits
    def __init__(self, name: _Optional[str] = ..., queue: _Optional[str] = ..., user: _Optional[str] = ..., tier: _Optional[str] = ..., program: _Optional[_Union[_types_pb2.Program, _Mapping]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ..., members_min: _Optional[int] = ..., members_max: _Optional[int] = ..., estimate_seconds: _Optional[float] = ..., topology: _Optional[str] = ..., regions: _Optional[_Iterable[str]] = ..., standing: _Optional[_Union[_types_pb2.Standing, _Mapping]] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("rank", "node", "gpus", "attempt")
    RANK_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    rank: int
    node: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    attempt: int
    def __init__(self, rank: _Optional[int] = ..., node: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., attempt: _Optional[int] = ...) -> None: ...

class SubmittedJob(_message.Message):
    __slots__ = ("id", "revision", "spec", "state", "reason", "members", "submitted", "started", "ended", "gpu_seconds", "gpu_fraction", "exit", "region")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[SubmittedJob.State]
        PENDING: _ClassVar[SubmittedJob.State]
        STARTING: _ClassVar[SubmittedJob.State]
        RUNNING: _ClassVar[SubmittedJob.State]
        SUSPENDED: _ClassVar[SubmittedJob.State]
        MOVING: _ClassVar[SubmittedJob.State]
        CANCELLING: _ClassVar[SubmittedJob.State]
        SUCCEEDED: _ClassVar[SubmittedJob.State]
        FAILED: _ClassVar[SubmittedJob.State]
        CANCELLED: _ClassVar[SubmittedJob.State]
    STATE_UNSPECIFIED: SubmittedJob.State
    PENDING: SubmittedJob.State
    STARTING: SubmittedJob.State
    RUNNING: SubmittedJob.State
    SUSPENDED: SubmittedJob.State
    MOVING: SubmittedJob.State
    CANCELLING: SubmittedJob.State
    SUCCEEDED: SubmittedJob.State
    FAILED: SubmittedJob.State
    CANCELLED: SubmittedJob.State
    ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    GPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GPU_FRACTION_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    id: str
    revision: int
    spec: JobSpec
    state: SubmittedJob.State
    reason: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    submitted: float
    started: float
    ended: float
    gpu_seconds: float
    gpu_fraction: float
    exit: int
    region: str
    def __init__(self, id: _Optional[str] = ..., revision: _Optional[int] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[SubmittedJob.State, str]] = ..., reason: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., submitted: _Optional[float] = ..., started: _Optional[float] = ..., ended: _Optional[float] = ..., gpu_seconds: _Optional[float] = ..., gpu_fraction: _Optional[float] = ..., exit: _Optional[int] = ..., region: _Optional[str] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("request", "spec")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request: str
    spec: JobSpec
    def __init__(self, request: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("queue", "user", "states", "page_size", "page")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    user: str
    states: _containers.RepeatedScalarFieldContainer[SubmittedJob.State]
    page_size: int
    page: str
    def __init__(self, queue: _Optional[str] = ..., user: _Optional[str] = ..., states: _Optional[_Iterable[_Union[SubmittedJob.State, str]]] = ..., page_size: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("jobs", "next_page", "revision")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[SubmittedJob]
    next_page: str
    revision: int
    def __init__(self, jobs: _Optional[_Iterable[_Union[SubmittedJob, _Mapping]]] = ..., next_page: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_revision", "job")
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    job: str
    def __init__(self, after_revision: _Optional[int] = ..., job: _Optional[str] = ...) -> None: ...

class JobChange(_message.Message):
    __slots__ = ("revision", "job")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    revision: int
    job: SubmittedJob
    def __init__(self, revision: _Optional[int] = ..., job: _Optional[_Union[SubmittedJob, _Mapping]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("request", "job", "grace_seconds")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request: str
    job: str
    grace_seconds: float
    def __init__(self, request: _Optional[str] = ..., job: _Optional[str] = ..., grace_seconds: _Optional[float] = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("request", "job", "members_min", "members_max", "queue", "tier", "limits", "weight", "suspended")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_MIN_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_MAX_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    request: str
    job: str
    members_min: int
    members_max: int
    queue: str
    tier: str
    limits: _types_pb2.Limits
    weight: int
    suspended: bool
    def __init__(self, request: _Optional[str] = ..., job: _Optional[str] = ..., members_min: _Optional[int] = ..., members_max: _Optional[int] = ..., queue: _Optional[str] = ..., tier: _Optional[str] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ..., weight: _Optional[int] = ..., suspended: _Optional[bool] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("gpu_thousandths", "gpu_memory_bytes", "cpu_thousandths", "memory_bytes")
    GPU_THOUSANDTHS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_THOUSANDTHS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    gpu_thousandths: int
    gpu_memory_bytes: int
    cpu_thousandths: int
    memory_bytes: int
    def __init__(self, gpu_thousandths: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ..., cpu_thousandths: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("name", "quota", "limit", "weight", "used", "asked", "running", "pending")
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    name: str
    quota: Resources
    limit: Resources
    weight: int
    used: Resources
    asked: Resources
    running: int
    pending: int
    def __init__(self, name: _Optional[str] = ..., quota: _Optional[_Union[Resources, _Mapping]] = ..., limit: _Optional[_Union[Resources, _Mapping]] = ..., weight: _Optional[int] = ..., used: _Optional[_Union[Resources, _Mapping]] = ..., asked: _Optional[_Union[Resources, _Mapping]] = ..., running: _Optional[int] = ..., pending: _Optional[int] = ...) -> None: ...

class QueuesRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class QueuesReply(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ...) -> None: ...

class SetQuotaRequest(_message.Message):
    __slots__ = ("request", "queue")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    request: str
    queue: Queue
    def __init__(self, request: _Optional[str] = ..., queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "address", "state", "gpus", "total", "used", "domains", "reason", "heard")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Node.State]
        READY: _ClassVar[Node.State]
        DRAINING: _ClassVar[Node.State]
        DRAINED: _ClassVar[Node.State]
        UNKNOWN: _ClassVar[Node.State]
        LOST: _ClassVar[Node.State]
    STATE_UNSPECIFIED: Node.State
    READY: Node.State
    DRAINING: Node.State
    DRAINED: Node.State
    UNKNOWN: Node.State
    LOST: Node.State
    class DomainsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    state: Node.State
    gpus: _containers.RepeatedCompositeFieldContainer[_types_pb2.Gpu]
    total: Resources
    used: Resources
    domains: _containers.ScalarMap[str, str]
    reason: str
    heard: float
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[Node.State, str]] = ..., gpus: _Optional[_Iterable[_Union[_types_pb2.Gpu, _Mapping]]] = ..., total: _Optional[_Union[Resources, _Mapping]] = ..., used: _Optional[_Union[Resources, _Mapping]] = ..., domains: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ..., heard: _Optional[float] = ...) -> None: ...

class NodesRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class NodesReply(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class AnnounceRequest(_message.Message):
    __slots__ = ("name", "address", "domains")
    class DomainsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    domains: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., domains: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AnnounceReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("request", "node", "draining", "reason", "patience_seconds")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request: str
    node: str
    draining: bool
    reason: str
    patience_seconds: float
    def __init__(self, request: _Optional[str] = ..., node: _Optional[str] = ..., draining: _Optional[bool] = ..., reason: _Optional[str] = ..., patience_seconds: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("job", "reason", "misses", "position", "estimate_seconds")
    class Miss(_message.Message):
        __slots__ = ("node", "lacks")
        NODE_FIELD_NUMBER: _ClassVar[int]
        LACKS_FIELD_NUMBER: _ClassVar[int]
        node: str
        lacks: str
        def __init__(self, node: _Optional[str] = ..., lacks: _Optional[str] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    job: str
    reason: str
    misses: _containers.RepeatedCompositeFieldContainer[Explanation.Miss]
    position: int
    estimate_seconds: float
    def __init__(self, job: _Optional[str] = ..., reason: _Optional[str] = ..., misses: _Optional[_Iterable[_Union[Explanation.Miss, _Mapping]]] = ..., position: _Optional[int] = ..., estimate_seconds: _Optional[float] = ...) -> None: ...
