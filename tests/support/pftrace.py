# SPDX-License-Identifier: Apache-2.0
"""Reads a trace with Perfetto's own classes, and refuses what Perfetto's trace processor would drop or mend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

MONOTONIC, BOOTTIME = 3, 6


@dataclass
class Slice:
    name: str
    begin: int
    end: int | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    flows: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


@dataclass
class Track:
    name: str
    parent: str | None
    unit: int | None
    slices: list[Slice] = field(default_factory=list)
    points: list[tuple[int, int]] = field(default_factory=list)
    instants: list[tuple[int, str]] = field(default_factory=list)


def value(annotation: Any) -> Any:
    return getattr(annotation, annotation.WhichOneof("value"))


def read(data: bytes) -> tuple[dict[tuple[str | None, str], Track], Any]:
    """({(name of the parent, name): track}, the ClockSnapshot). Asserts that the file is a sound trace."""
    trace = pb.Trace()
    assert trace.ParseFromString(data) == len(data)
    assert trace.SerializeToString() == data or len(trace.SerializeToString()) == len(data), "unknown fields"
    first, *packets = trace.packet
    assert first.sequence_flags == pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    clocks = {clock.clock_id for clock in first.clock_snapshot.clocks}
    assert {MONOTONIC, BOOTTIME} <= clocks and first.clock_snapshot.primary_trace_clock == BOOTTIME
    tracks: dict[int, Track] = {}
    open_slices: dict[int, Slice] = {}
    last = 0
    for packet in packets:
        assert packet.trusted_packet_sequence_id == first.trusted_packet_sequence_id != 0
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid not in tracks and descriptor.uuid != 0
            parent = tracks[descriptor.parent_uuid].name if descriptor.HasField("parent_uuid") else None
            unit = descriptor.counter.unit if descriptor.HasField("counter") else None
            tracks[descriptor.uuid] = Track(descriptor.name, parent, unit)
            continue
        assert packet.HasField("track_event") and packet.timestamp_clock_id == MONOTONIC
        assert packet.timestamp >= last, "in the order of time"
        last = packet.timestamp
        event = packet.track_event
        track = tracks[event.track_uuid]
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_slices, f"{track.name}: slices of one track do not overlap"
            arguments = {one.name: value(one) for one in event.debug_annotations}
            begun = Slice(event.name, packet.timestamp, None, arguments)
            begun.flows, begun.ends = list(event.flow_ids), list(event.terminating_flow_ids)
            track.slices.append(begun)
            open_slices[event.track_uuid] = begun
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            open_slices.pop(event.track_uuid).end = packet.timestamp
        elif event.type == pb.TrackEvent.TYPE_COUNTER:
            assert track.unit is not None
            track.points.append((packet.timestamp, event.counter_value))
        else:
            assert event.type == pb.TrackEvent.TYPE_INSTANT
            track.instants.append((packet.timestamp, event.name))
    found = {(track.parent, track.name): track for track in tracks.values()}
    assert len(found) == len(tracks), "Perfetto shows tracks of one parent and one name as one"
    return found, first.clock_snapshot
