from gpuvirt.proto.gpuvirt.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Order(_message.Message):
    __slots__ = ("term", "command")
    TERM_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    term: int
    command: str
    def __init__(self, term: _Optional[int] = ..., command: _Optional[str] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("term", "scheduler")
    TERM_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    term: int
    scheduler: str
    def __init__(self, term: _Optional[int] = ..., scheduler: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("host", "version", "generation", "boot", "gpus", "cpus", "memory_bytes", "swap_bytes", "now")
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    host: str
    version: str
    generation: int
    boot: str
    gpus: _containers.RepeatedCompositeFieldContainer[_types_pb2.Gpu]
    cpus: int
    memory_bytes: int
    swap_bytes: int
    now: Heartbeat
    def __init__(self, host: _Optional[str] = ..., version: _Optional[str] = ..., generation: _Optional[int] = ..., boot: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[_types_pb2.Gpu, _Mapping]]] = ..., cpus: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., swap_bytes: _Optional[int] = ..., now: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class HeartbeatsRequest(_message.Message):
    __slots__ = ("term", "period_seconds")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PERIOD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    term: int
    period_seconds: float
    def __init__(self, term: _Optional[int] = ..., period_seconds: _Optional[float] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence", "generation", "term", "recovering", "draining", "gpus", "jobs", "swap_room_bytes", "local_jobs")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    RECOVERING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    SWAP_ROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_JOBS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    generation: int
    term: int
    recovering: bool
    draining: bool
    gpus: _containers.RepeatedCompositeFieldContainer[_types_pb2.GpuUsage]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    swap_room_bytes: int
    local_jobs: int
    def __init__(self, sequence: _Optional[int] = ..., generation: _Optional[int] = ..., term: _Optional[int] = ..., recovering: _Optional[bool] = ..., draining: _Optional[bool] = ..., gpus: _Optional[_Iterable[_Union[_types_pb2.GpuUsage, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., swap_room_bytes: _Optional[int] = ..., local_jobs: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "attempt", "local", "state", "reason", "exit", "log", "limits", "standing", "gpus", "charged_bytes", "resident_bytes", "held_seconds", "waited_seconds", "command")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Job.State]
        STARTING: _ClassVar[Job.State]
        QUEUED: _ClassVar[Job.State]
        RUNNING: _ClassVar[Job.State]
        SUSPENDING: _ClassVar[Job.State]
        SUSPENDED: _ClassVar[Job.State]
        STOPPING: _ClassVar[Job.State]
        ENDED: _ClassVar[Job.State]
    STATE_UNSPECIFIED: Job.State
    STARTING: Job.State
    QUEUED: Job.State
    RUNNING: Job.State
    SUSPENDING: Job.State
    SUSPENDED: Job.State
    STOPPING: Job.State
    ENDED: Job.State
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HELD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    local: str
    state: Job.State
    reason: str
    exit: int
    log: str
    limits: _types_pb2.Limits
    standing: _types_pb2.Standing
    gpus: _containers.RepeatedScalarFieldContainer[str]
    charged_bytes: int
    resident_bytes: int
    held_seconds: float
    waited_seconds: float
    command: str
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., local: _Optional[str] = ..., state: _Optional[_Union[Job.State, str]] = ..., reason: _Optional[str] = ..., exit: _Optional[int] = ..., log: _Optional[str] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ..., standing: _Optional[_Union[_types_pb2.Standing, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ..., charged_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., held_seconds: _Optional[float] = ..., waited_seconds: _Optional[float] = ..., command: _Optional[str] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("order", "job", "attempt", "user", "program", "limits", "standing", "gpus")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    attempt: int
    user: str
    program: _types_pb2.Program
    limits: _types_pb2.Limits
    standing: _types_pb2.Standing
    gpus: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ..., attempt: _Optional[int] = ..., user: _Optional[str] = ..., program: _Optional[_Union[_types_pb2.Program, _Mapping]] = ..., limits: _Optional[_Union[_types_pb2.Limits, _Mapping]] = ..., standing: _Optional[_Union[_types_pb2.Standing, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ...) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("order", "job", "weight")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    weight: int
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class LimitRequest(_message.Message):
    __slots__ = ("order", "job", "memory_bytes", "soft_bytes", "reserve_bytes")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    memory_bytes: int
    soft_bytes: int
    reserve_bytes: int
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., soft_bytes: _Optional[int] = ..., reserve_bytes: _Optional[int] = ...) -> None: ...

class SuspendRequest(_message.Message):
    __slots__ = ("order", "job", "patience_seconds")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    patience_seconds: float
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ..., patience_seconds: _Optional[float] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("order", "job")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("order", "job", "grace_seconds")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    order: Order
    job: str
    grace_seconds: float
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., job: _Optional[str] = ..., grace_seconds: _Optional[float] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("order", "draining", "reason")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    order: Order
    draining: bool
    reason: str
    def __init__(self, order: _Optional[_Union[Order, _Mapping]] = ..., draining: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class JobReply(_message.Message):
    __slots__ = ("job", "repeated", "notes")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    job: Job
    repeated: bool
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., repeated: _Optional[bool] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("draining", "repeated")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    repeated: bool
    def __init__(self, draining: _Optional[bool] = ..., repeated: _Optional[bool] = ...) -> None: ...
