import { Box, Text } from "ink";
import type { Hold } from "../../proto/gen/clawsec/v1/control.js";
import { type Fact, facts } from "../describe.js";
import { fold } from "../layout.js";
import { Title } from "./title.js";

const labelWidth = 9;
// In less columns the hint about what is hidden would hide the rest, too.
const longHintFrom = 60;

interface Line {
  readonly key: string;
  readonly label: string;
  readonly text: string;
}

/** What the selected hold is about, the most important first, as far as there is room. */
export function Details({ hold, lines, width }: { hold: Hold | undefined; lines: number; width: number }) {
  const shown = hold === undefined ? [] : summary(facts(hold), lines, width - labelWidth);
  return (
    <Box flexDirection="column" width={width} height={lines + 1} flexShrink={0}>
      <Title text="Selected" width={width} />
      {hold === undefined ? <Text dimColor>{"  no hold is selected"}</Text> : <Lines lines={shown} />}
    </Box>
  );
}

/** All of one hold over the whole screen, from line `top` on. */
export function FullDetails({
  hold,
  top,
  lines,
  width,
}: {
  hold: Hold | undefined;
  top: number;
  lines: number;
  width: number;
}) {
  const all = hold === undefined ? [] : facts(hold).flatMap((fact) => unfold(fact, width - labelWidth));
  const start = Math.min(top, Math.max(0, all.length - lines));
  const below = Math.max(0, all.length - start - lines);
  return (
    <Box flexDirection="column" width={width} height={lines + 1}>
      <Title text={`All of the hold${below > 0 ? `, ${below} lines below` : ""}`} width={width} />
      <Lines lines={all.slice(start, start + lines)} />
    </Box>
  );
}

function Lines({ lines }: { lines: readonly Line[] }) {
  return lines.map(({ key, label, text }) => (
    <Text key={key} wrap="truncate-end">
      <Text dimColor>{`  ${label}`.padEnd(labelWidth)}</Text>
      {text}
    </Text>
  ));
}

function unfold({ label, text }: Fact, width: number): Line[] {
  return fold(text, width).map((part, index) => ({
    key: `${label}${index}`,
    label: index === 0 ? label : "",
    text: part,
  }));
}

/**
 * One line for each fact, and what is left over for those that need more, the first ones first: they say what
 * would happen. A fact that is cut says how much of it is not to be seen.
 */
function summary(known: readonly Fact[], lines: number, width: number): Line[] {
  const shown = known.slice(0, lines);
  let spare = lines - shown.length;
  return shown.flatMap((fact) => {
    const all = unfold(fact, width);
    const room = Math.min(all.length, 1 + spare);
    spare -= room - 1;
    return all.length > room ? cut(all, room, width, [...fact.text].length) : all;
  });
}

/** The first `room` of `lines`; the last one ends in how many of the fact's `total` characters are hidden. */
function cut(lines: readonly Line[], room: number, width: number, total: number): Line[] {
  const long = width >= longHintFrom;
  const hint = (hidden: number) => ` … ${hidden} more${long ? " characters: press" : ","} enter`;
  const whole = lines.slice(0, room - 1);
  const last = lines[room - 1];
  if (last === undefined) return whole;
  const text = fold(last.text, Math.max(1, width - hint(total).length))[0] ?? "";
  const shown = [...whole.map((line) => line.text), text].reduce((sum, part) => sum + [...part].length, 0);
  return [...whole, { ...last, text: text + hint(total - shown) }];
}
