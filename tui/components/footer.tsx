import { Text } from "ink";
import { visible } from "../escape.js";
import type { KillTarget, State } from "../store.js";

const roomyFrom = 80;

/** The last line: a prompt, else what just happened, else the keys. */
export function Footer({ state, width }: { state: State; width: number }) {
  const { mode, notice } = state;
  switch (mode.kind) {
    case "deny": {
      const prompt = width < roomyFrom ? "deny; reason: " : "deny; reason (enter denies, esc does not): ";
      // The end of a long reason is where the person types.
      const room = Math.max(1, width - prompt.length - 1);
      const end = [...visible(mode.reason)].slice(-room).join("");
      return (
        <Text wrap="truncate-end" color="red">
          {prompt}
          <Text color="white">{`${end}▏`}</Text>
        </Text>
      );
    }
    case "kill": {
      const target = mode.targets[mode.index];
      return (
        <Text wrap="truncate-end" color="red" bold>
          {target ? question(target, width) : ""}
        </Text>
      );
    }
    case "list":
    case "help":
    case "details":
      break;
  }
  if (notice)
    return (
      <Text wrap="truncate-end" color={notice.level === "error" ? "red" : "cyan"}>
        {visible(notice.text)}
      </Text>
    );
  if (mode.kind === "details") return <Keys text="a approve  d deny  j/k scroll  esc back" />;
  if (mode.kind === "help") return <Keys text="any key goes back" />;
  return <Keys text="a approve  d deny  enter all of it  j/k select  K kill  ? help  q quit" />;
}

function Keys({ text }: { text: string }) {
  return (
    <Text wrap="truncate-end" dimColor>
      {text}
    </Text>
  );
}

function question(target: KillTarget, width: number): string {
  if (width >= roomyFrom)
    return `KILL ${targetText(target)}? y kills, tab chooses another, any other key does not`;
  // The name last: it may be too long.
  return `y KILLS, tab: another, else not: ${target.kind === "all" ? "ALL" : visible(target.name)}`;
}

/** A kill's target in words. */
export function targetText(target: KillTarget): string {
  return target.kind === "all" ? "ALL SANDBOXES" : `sandbox ${visible(target.name)} and everything in it`;
}
