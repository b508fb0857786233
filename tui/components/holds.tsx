import { Box, Text } from "ink";
import type { Hold } from "../../proto/gen/clawsec/v1/control.js";
import { bar, clock, headline } from "../describe.js";
import { visible } from "../escape.js";
import { windowStart } from "../layout.js";
import type { State } from "../store.js";
import { Title } from "./title.js";

const barCells = 8;

/** The open holds, each with the time it has left. */
export function Holds({
  state,
  now,
  lines,
  width,
}: {
  state: State;
  now: number;
  lines: number;
  width: number;
}) {
  const { holds, selectedId } = state;
  const selected = holds.findIndex(({ id }) => id === selectedId);
  const start = windowStart(holds.length, lines, selected);
  const shown = holds.slice(start, start + lines);
  const more = holds.length - shown.length;
  const title = `Holds (${holds.length})${more > 0 ? `, ${start} above, ${more - start} below` : ""}`;
  return (
    <Box flexDirection="column" width={width} height={lines + 1} flexShrink={0}>
      <Title text={title} width={width} />
      {holds.length === 0 ? <Text dimColor>{emptyText(state)}</Text> : null}
      {shown.map((hold) => (
        <Row
          key={hold.id}
          hold={hold}
          now={now}
          selected={hold.id === selectedId}
          answering={state.answering.has(hold.id)}
        />
      ))}
    </Box>
  );
}

function emptyText({ connection }: State): string {
  return connection.kind === "connected"
    ? "  nothing waits for an answer"
    : "  not known without the supervisor";
}

interface RowProps {
  hold: Hold;
  now: number;
  selected: boolean;
  answering: boolean;
}

function Row({ hold, now, selected, answering }: RowProps) {
  const left = hold.deadlineUs / 1000 - now;
  const whole = (hold.deadlineUs - hold.openedUs) / 1000;
  const { kind, what } = headline(hold);
  return (
    <Text wrap="truncate-end" inverse={selected} dimColor={answering}>
      {selected ? "> " : "  "}
      <Text color={urgency(left, whole)}>
        {clock(left).padStart(5)} {bar(left, whole, barCells)}
      </Text>
      {` ${visible(hold.sandbox)}/${visible(hold.subject)} `}
      <Text bold>{kind}</Text>
      {` ${what}${hold.asked > 1 ? ` (asked ${hold.asked} times)` : ""}`}
    </Text>
  );
}

function urgency(left: number, whole: number): string {
  if (left < 10_000 || left < whole * 0.15) return "red";
  return left < whole * 0.5 ? "yellow" : "green";
}
