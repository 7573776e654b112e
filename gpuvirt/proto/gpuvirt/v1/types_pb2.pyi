from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("memory_bytes", "soft_bytes", "reserve_bytes")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    soft_bytes: int
    reserve_bytes: int
    def __init__(self, memory_bytes: _Optional[int] = ..., soft_bytes: _Optional[int] = ..., reserve_bytes: _Optional[int] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("weight", "priority", "tier", "deadline_seconds")
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[Standing.Priority]
        PRIORITY_LOW: _ClassVar[Standing.Priority]
        PRIORITY_NORMAL: _ClassVar[Standing.Priority]
        PRIORITY_HIGH: _ClassVar[Standing.Priority]
    PRIORITY_UNSPECIFIED: Standing.Priority
    PRIORITY_LOW: Standing.Priority
    PRIORITY_NORMAL: Standing.Priority
    PRIORITY_HIGH: Standing.Priority
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    weight: int
    priority: Standing.Priority
    tier: str
    deadline_seconds: float
    def __init__(self, weight: _Optional[int] = ..., priority: _Optional[_Union[Standing.Priority, str]] = ..., tier: _Optional[str] = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class Program(_message.Message):
    __slots__ = ("command", "environment", "folder")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    command: _containers.RepeatedScalarFieldContainer[str]
    environment: _containers.ScalarMap[str, str]
    folder: str
    def __init__(self, command: _Optional[_Iterable[str]] = ..., environment: _Optional[_Mapping[str, str]] = ..., folder: _Optional[str] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("uuid", "index", "type", "memory_bytes", "capacity_bytes", "policy")
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    index: int
    type: str
    memory_bytes: int
    capacity_bytes: int
    policy: str
    def __init__(self, uuid: _Optional[str] = ..., index: _Optional[int] = ..., type: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., policy: _Optional[str] = ...) -> None: ...

class GpuUsage(_message.Message):
    __slots__ = ("uuid", "healthy", "used_bytes", "charged_bytes", "resident_bytes", "holder", "waiting")
    UUID_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHARGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    healthy: bool
    used_bytes: int
    charged_bytes: int
    resident_bytes: int
    holder: str
    waiting: int
    def __init__(self, uuid: _Optional[str] = ..., healthy: _Optional[bool] = ..., used_bytes: _Optional[int] = ..., charged_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., holder: _Optional[str] = ..., waiting: _Optional[int] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("reason", "message", "hint", "term")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Problem.Reason]
        STALE_TERM: _ClassVar[Problem.Reason]
        COMMAND_REUSED: _ClassVar[Problem.Reason]
        JOB_EXISTS: _ClassVar[Problem.Reason]
        JOB_UNKNOWN: _ClassVar[Problem.Reason]
        JOB_ENDED: _ClassVar[Problem.Reason]
        WRONG_STATE: _ClassVar[Problem.Reason]
        DRAINING: _ClassVar[Problem.Reason]
        INVALID: _ClassVar[Problem.Reason]
        UNAUTHENTICATED: _ClassVar[Problem.Reason]
        NOT_PERMITTED: _ClassVar[Problem.Reason]
        REFUSED: _ClassVar[Problem.Reason]
        TIMED_OUT: _ClassVar[Problem.Reason]
        INTERNAL: _ClassVar[Problem.Reason]
    REASON_UNSPECIFIED: Problem.Reason
    STALE_TERM: Problem.Reason
    COMMAND_REUSED: Problem.Reason
    JOB_EXISTS: Problem.Reason
    JOB_UNKNOWN: Problem.Reason
    JOB_ENDED: Problem.Reason
    WRONG_STATE: Problem.Reason
    DRAINING: Problem.Reason
    INVALID: Problem.Reason
    UNAUTHENTICATED: Problem.Reason
    NOT_PERMITTED: Problem.Reason
    REFUSED: Problem.Reason
    TIMED_OUT: Problem.Reason
    INTERNAL: Problem.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    reason: Problem.Reason
    message: str
    hint: str
    term: int
    def __init__(self, reason: _Optional[_Union[Problem.Reason, str]] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...
