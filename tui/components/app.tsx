import { useApp, useInput, useWindowSize } from "ink";
import { useEffect, useState, useSyncExternalStore } from "react";
import { Controller } from "../controller.js";
import { isTooSmall } from "../layout.js";
import { Screen } from "./screen.js";

const tickMs = 250;

/** The screen of the supervisor behind `socketPath`. */
export function App({ socketPath }: { socketPath: string }) {
  const { exit } = useApp();
  const { columns, rows } = useWindowSize();
  const now = useNow();
  const [controller] = useState(() => new Controller(socketPath, exit));
  useEffect(() => {
    controller.open();
    return () => controller.close();
  }, [controller]);
  const state = useSyncExternalStore(controller.watch, controller.state);
  useInput((input, key) => {
    if (!isTooSmall(columns, rows)) controller.key(input, key);
    else if (input === "q" || (key.ctrl && input === "c")) exit();
  });
  return <Screen state={state} now={now} columns={columns} rows={rows} />;
}

/** The time, in ms since the epoch, renewed often enough for a countdown in seconds. */
function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), tickMs);
    return () => clearInterval(timer);
  }, []);
  return now;
}
