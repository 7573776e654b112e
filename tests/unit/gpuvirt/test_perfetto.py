# SPDX-License-Identifier: Apache-2.0
"""Every field that we write, decoded with Perfetto's own classes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from gpuvirt.perfetto import BOOTTIME, BYTES, MONOTONIC, REALTIME, Trace, varint


def packets(trace: Trace) -> list[pb.TracePacket]:
    found = pb.Trace()
    found.ParseFromString(trace.encode())
    return list(found.packet)


def test_clocks() -> None:
    [first] = packets(Trace({REALTIME: 1_700_000_000_000_000_000, BOOTTIME: 70, MONOTONIC: 50}))
    assert [(one.clock_id, one.timestamp) for one in first.clock_snapshot.clocks] == [
        (pb.BUILTIN_CLOCK_REALTIME, 1_700_000_000_000_000_000),
        (pb.BUILTIN_CLOCK_BOOTTIME, 70),
        (pb.BUILTIN_CLOCK_MONOTONIC, 50),
    ]
    assert first.clock_snapshot.primary_trace_clock == pb.BUILTIN_CLOCK_BOOTTIME
    assert (first.timestamp, first.timestamp_clock_id) == (50, pb.BUILTIN_CLOCK_MONOTONIC)
    assert first.sequence_flags == pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED


def test_tracks() -> None:
    trace = Trace({MONOTONIC: 1})
    gpu = trace.track("GPU 0", rank=3)
    trace.track("resident", parent=gpu, rank=1, counter=BYTES)
    _, parent, child = (packet.track_descriptor for packet in packets(trace))
    assert (parent.uuid, parent.name, parent.sibling_order_rank) == (gpu, "GPU 0", 3)
    assert not parent.HasField("parent_uuid") and not parent.HasField("counter")
    assert parent.child_ordering == pb.TrackDescriptor.EXPLICIT
    assert (child.parent_uuid, child.name, child.sibling_order_rank) == (gpu, "resident", 1)
    assert child.counter.unit == pb.CounterDescriptor.UNIT_SIZE_BYTES and child.uuid not in (0, gpu)


def test_events() -> None:
    trace = Trace({MONOTONIC: 1})
    track = trace.track("lease")
    arguments = {"job": "j1", "epoch": 7, "less": -3, "share": 0.25, "idle": True}
    trace.slice(track, "held", 100, 200, arguments, "gpuvirt", flows=[1 << 50], ends=[9])
    trace.instant(track, "no room", 150)
    trace.count(track, 160, 1 << 40)
    _, _, begin, instant, count, end = packets(trace)
    assert [packet.timestamp for packet in (begin, instant, count, end)] == [100, 150, 160, 200]
    assert {packet.timestamp_clock_id for packet in (begin, instant, count, end)} == {pb.BUILTIN_CLOCK_MONOTONIC}
    assert {packet.track_event.track_uuid for packet in (begin, instant, count, end)} == {track}
    event = begin.track_event
    assert (event.type, event.name, list(event.categories)) == (pb.TrackEvent.TYPE_SLICE_BEGIN, "held", ["gpuvirt"])
    assert (list(event.flow_ids), list(event.terminating_flow_ids)) == ([1 << 50], [9])
    told = {one.name: getattr(one, one.WhichOneof("value")) for one in event.debug_annotations}
    assert told == arguments
    assert end.track_event.type == pb.TrackEvent.TYPE_SLICE_END
    assert (instant.track_event.type, instant.track_event.name) == (pb.TrackEvent.TYPE_INSTANT, "no room")
    assert (count.track_event.type, count.track_event.counter_value) == (pb.TrackEvent.TYPE_COUNTER, 1 << 40)


def test_what_ends_comes_before_what_begins() -> None:
    trace = Trace({MONOTONIC: 1})
    track = trace.track("lease")
    trace.slice(track, "second", 20, None)
    trace.slice(track, "first", 10, 20)
    kinds = [(packet.timestamp, packet.track_event.type) for packet in packets(trace)[2:]]
    begin, end = pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END
    assert kinds == [(10, begin), (20, end), (20, begin)]


@settings(deadline=None)
@given(st.integers(-(1 << 63), (1 << 63) - 1), st.text(max_size=50))
def test_any_value(value: int, text: str) -> None:
    trace = Trace({MONOTONIC: 1})
    trace.slice(trace.track(text), text, 5, None, {"n": value, "t": text})
    event = packets(trace)[2].track_event
    assert [event.debug_annotations[0].int_value, event.debug_annotations[1].string_value] == [
        value,
        text.encode(errors="replace").decode(),
    ]


def test_varint() -> None:
    assert [varint(value) for value in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]
    assert len(varint(-1)) == 10
