/** Uses of rates are counted once for a question, for each sandbox apart, and outlive the supervisor. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { question } from "../../testing/questions.js";
import { RateBook } from "./rates.js";

let folder: string;
let book: RateBook;
const MINUTE = 60_000;
const NOW = Date.now();
const RULE = "exec/push";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-rates-"));
  book = new RateBook(join(folder, "rates.db"));
});
afterEach(() => {
  book.close();
  rmSync(folder, { recursive: true });
});

const used = (id: number, nowMs = NOW) => book.used(question(id), RULE, MINUTE, nowMs);

test("counts what others used within the period, and not what is older", () => {
  book.note(question(1), [RULE], NOW - MINUTE - 1);
  book.note(question(2), [RULE], NOW - MINUTE + 1);
  book.note(question(3), [RULE], NOW);
  expect(used(9)).toBe(2);
  expect(used(9, NOW + MINUTE - 1)).toBe(1);
  expect(used(9, NOW + MINUTE)).toBe(0);
});

test("does not count a question against itself, nor twice when it is judged again", () => {
  book.note(question(1), [RULE], NOW);
  book.note(question(1), [RULE], NOW + 5);
  expect(used(1)).toBe(0);
  expect(used(2)).toBe(1);
});

test("tells a question of another boot of the loader apart from one with the same number", () => {
  book.note(question(1, { askedUs: 1000 }), [RULE], NOW);
  expect(book.used(question(1, { askedUs: 2000 }), RULE, MINUTE, NOW)).toBe(1);
});

test("keeps rules and sandboxes apart", () => {
  book.note(question(1), [RULE, "exec/other"], NOW);
  book.note(question(2, { sandbox: "another" }), [RULE], NOW);
  expect(used(9)).toBe(1);
  expect(book.used(question(9), "exec/other", MINUTE, NOW)).toBe(1);
  expect(book.used(question(9), "exec/third", MINUTE, NOW)).toBe(0);
});

test("remembers over a restart: a new supervisor is no new allowance", () => {
  book.note(question(1), [RULE], NOW);
  book.close();
  book = new RateBook(join(folder, "rates.db"));
  expect(used(9)).toBe(1);
});
