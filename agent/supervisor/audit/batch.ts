/** A batch of the loader's events, taken apart: each event with the bytes that it came as. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Event } from "../../../proto/gen/clawsec/v1/loader.js";

export interface ReceivedEvent {
  readonly event: Event;
  /** As the loader encoded it, with what this supervisor does not know: what is kept. */
  readonly bytes: Uint8Array;
}

/** Field 1 of EventBatch, length-delimited. */
const EVENTS = 10;

/** The events of an encoded EventBatch, in order. Throws when it is none. */
export function eventsOf(batch: Uint8Array): ReceivedEvent[] {
  const reader = new BinaryReader(batch);
  const events: ReceivedEvent[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === EVENTS) {
      const bytes = reader.bytes();
      events.push({ event: Event.decode(bytes), bytes });
    } else {
      reader.skip(tag & 7, tag >>> 3);
    }
  }
  return events;
}
