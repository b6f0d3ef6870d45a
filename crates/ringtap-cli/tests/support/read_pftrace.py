"""Prints a Perfetto trace as JSON lines, decoded by the definitions in PyPI's `perfetto` and by nothing of ours."""

import json
import sys

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

CLEARED = proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
TYPES = {
    proto.TrackEvent.TYPE_SLICE_BEGIN: "begin",
    proto.TrackEvent.TYPE_SLICE_END: "end",
    proto.TrackEvent.TYPE_INSTANT: "instant",
    proto.TrackEvent.TYPE_COUNTER: "counter",
}


def value(annotation):
    if annotation.array_values:
        return [value(each) for each in annotation.array_values]
    kind = annotation.WhichOneof("value")
    if kind is None:
        return []
    held = getattr(annotation, kind)
    return f"0x{held:x}" if kind == "pointer_value" else held


def main():
    trace = proto.Trace()
    with open(sys.argv[1], "rb") as file:
        trace.ParseFromString(file.read())
    tracks, names = {}, {}
    for packet in trace.packet:
        sequence = packet.trusted_packet_sequence_id
        assert sequence, "each packet belongs to a sequence"
        if packet.sequence_flags & CLEARED:
            names[sequence] = ({}, {}, {})
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if packet.HasField("ftrace_events"):
            schedule(packet.ftrace_events)
        if not packet.HasField("track_event"):
            continue
        assert packet.sequence_flags & proto.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        categories, events, fields = names[sequence]
        data = packet.interned_data
        for known, new in ((categories, data.event_categories), (events, data.event_names),
                           (fields, data.debug_annotation_names)):
            for each in new:
                assert each.iid not in known
                known[each.iid] = each.name
        event = packet.track_event
        track = tracks[event.track_uuid]
        line = {"ts": packet.timestamp, "type": TYPES[event.type], "sequence": sequence}
        if packet.previous_packet_dropped:
            line["dropped"] = True
        if track.HasField("thread"):
            assert tracks[track.parent_uuid].process.pid == track.thread.pid
            line["thread"] = track.thread.tid
            line["comm"] = track.thread.thread_name
        else:
            line["track"] = track.name
        assert track.HasField("counter") == (line["type"] == "counter")
        line["name"] = events[event.name_iid] if event.name_iid else event.name
        line["category"] = "".join(categories[iid] for iid in event.category_iids)
        line["args"] = {fields[each.name_iid]: value(each) for each in event.debug_annotations}
        if line["type"] == "counter":
            kind = event.WhichOneof("counter_value_field")
            line["value"] = getattr(event, kind)
        for key, ids in (("flows", event.flow_ids), ("flow_ends", event.terminating_flow_ids)):
            if ids:
                line[key] = list(ids)
        print(json.dumps(line))


def schedule(bundle):
    for place, event in enumerate(bundle.event):
        kind = event.WhichOneof("event")
        fields = getattr(event, kind)
        args = {field.name: held for field, held in fields.ListFields()}
        line = {"ts": event.timestamp, "type": "schedule", "cpu": bundle.cpu, "pid": event.pid, "name": kind,
                "args": args}
        if place == 0 and bundle.lost_events:
            line["dropped"] = True
        print(json.dumps(line))


main()
