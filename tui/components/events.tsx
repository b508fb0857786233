import { Box, Text } from "ink";
import type { AuditRecord } from "../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { eventLine } from "../describe.js";
import { Title } from "./title.js";

/** The newest audit records, the newest at the bottom. */
export function Events({
  events,
  lines,
  width,
}: {
  events: readonly AuditRecord[];
  lines: number;
  width: number;
}) {
  if (lines <= 0) return null;
  return (
    <Box flexDirection="column" width={width} height={lines + 1} flexShrink={0}>
      <Title text="Events" width={width} />
      {events.slice(-lines).map((record) => (
        <Text key={record.id} wrap="truncate-end" color={colour(record)}>
          {eventLine(record)}
        </Text>
      ))}
    </Box>
  );
}

function colour({ kind, verdict }: AuditRecord): string {
  if (kind === "lost" || kind === "kill") return "magenta";
  if (verdict === Verdict.DENY) return "red";
  return verdict === Verdict.HOLD ? "yellow" : "white";
}
