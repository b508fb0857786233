// Whether a way's effect is there. Files, packets and words decide, never what a call returned.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Listeners } from "./listeners.js";
import { folderOf, heardFolder, hostPath, isUnchanged, output, type Place, type Try } from "./place.js";

function contains(path: string, text: string): boolean {
  return existsSync(path) && readFileSync(path, "latin1").includes(text);
}

/** What a try came to. */
export type Outcome = "effect" | "none" | "not tried";

export function outcome(place: Place, attempt: Try, listeners: Listeners, hostWords: string): Outcome {
  const said = output(place, attempt);
  // An effect counts also where the program did not come to its end.
  if (hasEffect(place, attempt, listeners, said ?? "", hostWords)) return "effect";
  return said === undefined ? "not tried" : "none";
}

function hasEffect(
  place: Place,
  attempt: Try,
  listeners: Listeners,
  said: string,
  hostWords: string,
): boolean {
  const { effect } = attempt.way;
  switch (effect.kind) {
    case "ran":
      return contains(hostPath(place, `${folderOf(attempt)}/mark`), attempt.token);
    case "read": {
      const words = {
        victim: attempt.victimText.trim(),
        secret: place.secretText,
        outside: place.outsideText,
        "host environment": hostWords,
        "gateway environment": place.gatewayText,
      };
      return said.includes(words[effect.what]);
    }
    case "changed":
      return !isUnchanged(place, attempt);
    case "sent":
      return listeners.sent(attempt.token, attempt.port);
    case "heard":
      return effect.by === "host"
        ? listeners.heard(attempt.token)
        : existsSync(hostPath(place, `${heardFolder}/${attempt.token}`));
    case "shown":
      return said.includes(`effect ${attempt.token}`);
    case "written":
      return existsSync(join(place.outside, attempt.token)) || contains(place.policy, attempt.token);
  }
}
