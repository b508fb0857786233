/** Which questions are answered together. */
import { expect, test } from "vitest";
import { question } from "../../testing/questions.js";
import { holdKey } from "./key.js";

test("the same command has one key, whatever its ids", () => {
  const key = holdKey(question(1, {}, { argvHash: "aa" }), "exec/git-push");
  expect(holdKey(question(2, {}, { argvHash: "aa" }), "exec/git-push")).toBe(key);
  expect(holdKey(question(1, {}, { argvHash: "aa" }), "exec/other")).not.toBe(key);
});

test("commands that differ only in bytes that are no text have two keys", () => {
  // Both bytes are U+FFFD as text; the hash is of the bytes.
  const argv = ["git", "push", "\uFFFD"];
  const key = holdKey(question(1, {}, { argv, argvHash: "aa" }), "exec/git-push");
  expect(holdKey(question(1, {}, { argv, argvHash: "bb" }), "exec/git-push")).not.toBe(key);
  expect(holdKey(question(1, {}, { argv, argvHash: "aa" }), "exec/git-push")).toBe(key);
});

test("commands that go by something else that is not shown have two keys", () => {
  const key = holdKey(question(1, {}, { contextHash: "aa" }), "exec/deploy");
  expect(holdKey(question(1, {}, { contextHash: "bb" }), "exec/deploy")).not.toBe(key);
  expect(holdKey(question(2, {}, { contextHash: "aa" }), "exec/deploy")).toBe(key);
});
