// Who answers the demo's holds: a person at the terminal, or the demo itself.

import { createInterface } from "node:readline/promises";

/** Answers "approve" or "deny" for a hold. */
export type Answerer = (question: string, expected: "approve" | "deny") => Promise<"approve" | "deny">;

/** The demo answers as the step wants it. */
export const unattended: Answerer = async (_question, expected) => expected;

/** A person answers; anything but a clear yes is a no. */
export const attended: Answerer = async (question, expected) => {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const hint = expected === "approve" ? "y" : "n";
    const answer = await terminal.question(`    ${question} Approve? [y/n] (the demo expects ${hint}) `);
    return /^y(es)?$/i.test(answer.trim()) ? "approve" : "deny";
  } finally {
    terminal.close();
  }
};
