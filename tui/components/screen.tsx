import { Box, Text } from "ink";
import { isTooSmall, layout, smallest } from "../layout.js";
import { type State, selectedHold } from "../store.js";
import { Details, FullDetails } from "./details.js";
import { Events } from "./events.js";
import { Footer } from "./footer.js";
import { Help } from "./help.js";
import { Holds } from "./holds.js";
import { StatusLine } from "./status.js";

/** The whole screen for a state at a time (`now`, ms since the epoch), in a terminal of this size. */
export function Screen({
  state,
  now,
  columns,
  rows,
}: {
  state: State;
  now: number;
  columns: number;
  rows: number;
}) {
  if (isTooSmall(columns, rows)) {
    const least = `${smallest.columns} x ${smallest.rows}`;
    return (
      <Text>{`clawsec: ${columns} x ${rows} is too small to see what is answered: at least ${least}. q quits`}</Text>
    );
  }
  const sizes = layout(columns, rows);
  return (
    <Box flexDirection="column" width={sizes.columns} height={sizes.rows} overflow="hidden">
      <StatusLine state={state} />
      <Body state={state} now={now} sizes={sizes} />
      <Box flexGrow={1} />
      <Footer state={state} width={sizes.columns} />
    </Box>
  );
}

function Body({ state, now, sizes }: { state: State; now: number; sizes: ReturnType<typeof layout> }) {
  const { mode } = state;
  const page = sizes.rows - 3;
  if (mode.kind === "help") return <Help lines={page} width={sizes.columns} />;
  if (mode.kind === "details") {
    const hold = state.holds.find(({ id }) => id === mode.holdId);
    return <FullDetails hold={hold} top={mode.top} lines={page} width={sizes.columns} />;
  }
  return (
    <>
      <Box flexDirection={sizes.wide ? "row" : "column"} columnGap={2} flexShrink={0}>
        <Holds state={state} now={now} lines={sizes.holds} width={sizes.holdsWidth} />
        <Details hold={selectedHold(state)} lines={sizes.details} width={sizes.detailsWidth} />
      </Box>
      <Events events={state.events} lines={sizes.events} width={sizes.columns} />
    </>
  );
}
