import { Text } from "ink";
import type { StatusResponse } from "../../proto/gen/clawsec/v1/control.js";
import { type SandboxInfo, SandboxState } from "../../proto/gen/clawsec/v1/loader.js";
import { healthWord, stateWord } from "../../proto/words.js";
import { visible } from "../escape.js";
import type { State } from "../store.js";

/** One line: is everything connected, what runs, was anything lost. */
export function StatusLine({ state }: { state: State }) {
  const { connection, status } = state;
  switch (connection.kind) {
    case "connecting":
      return <Text wrap="truncate-end">clawsec: connecting to the supervisor</Text>;
    case "gone":
      return (
        <Text wrap="truncate-end" color="red" bold>
          clawsec: connecting again; {visible(connection.why)}
        </Text>
      );
    case "connected":
      return status === undefined ? null : <Connected status={status} />;
  }
}

function Connected({ status }: { status: StatusResponse }) {
  const lost = Object.entries(status.lostEvents).filter(([, count]) => count > 0);
  const sum = lost.reduce((total, [, count]) => total + count, 0);
  return (
    <Text wrap="truncate-end">
      {status.loaderConnected ? (
        "clawsec: supervisor and loader connected"
      ) : (
        <>
          {"clawsec: supervisor connected, "}
          <Text color="red">{`loader: ${visible(status.loader)}`}</Text>
        </>
      )}
      {", "}
      {sum === 0 ? (
        "no events lost"
      ) : (
        <Text color="red">{`${sum} events lost (${lost.map(([way]) => visible(way)).join(", ")})`}</Text>
      )}
      {`; ${sandboxes(status)}`}
    </Text>
  );
}

function sandboxes({ sandboxes, health }: StatusResponse): string {
  if (sandboxes.length === 0) return "no sandboxes";
  // What runs comes first: the line is cut at its end.
  const hasEnded = ({ state }: SandboxInfo) => state === SandboxState.EXITED || state === SandboxState.KILLED;
  return sandboxes
    .toSorted((one, other) => Number(hasEnded(one)) - Number(hasEnded(other)))
    .map(({ name, state, processes }) => {
      const checked = health[name];
      const more = [
        ...(processes > 0 ? [String(processes)] : []),
        ...(checked === undefined ? [] : [healthWord(checked.state)]),
      ];
      return `${visible(name)} ${stateWord(state)}${more.length > 0 ? ` (${more.join(", ")})` : ""}`;
    })
    .join(", ");
}
