import { describe, expect, test } from "vitest";
import { compileRequestPath, readRequestPath } from "./request.js";

describe("the path of a request", () => {
  test.each([
    "/a/../b",
    "/a/./b",
    "/a/..",
    "/.",
    "//a",
    "/a//b",
    "/a//",
    "/%2e%2e/b",
    "/%2E/b",
    "/a%2Fb",
    "/a%2fb",
    "/a%5cb",
    "/a%5Cb",
    "/a\\b",
    "/..;x=y/b",
    "/;x/b",
    "/%252e",
    "/a%00",
    "/a%0a",
    "/a%7f",
    "/a%",
    "/a%4",
    "/a%zz",
    "/\u00fc",
    "/a b",
  ])("%s is doubtful", (path) => {
    expect(readRequestPath(path)).toBe("doubtful");
  });

  test.each(["/", "/a", "/a/", "/a..b", "/...", "/a.", "/.well-known/x", "/a%20b", "/a;v=1/b", "/%e4", "*"])(
    "%s is what it says",
    (path) => {
      expect(readRequestPath(path)).toEqual({ forms: [path] });
    },
  );

  test("what need not be encoded may be read decoded", () => {
    expect(readRequestPath("/%61dmin/%20")).toEqual({ forms: ["/%61dmin/%20", "/admin/%20"] });
  });
});

describe("patterns for the path of a request", () => {
  test.each([
    ["/v1/**", "/v1/a", true],
    ["/v1/**", "/v1/a/", true],
    ["/v1/**", "/v1/", true],
    ["/v1/**", "/v1", false],
    ["/v1/**", "/v10/a", false],
    ["/v1/*", "/v1/a", true],
    ["/v1/*", "/v1/a/b", false],
    ["/v1/{a,b}", "/v1/b", true],
    ["/v1/{a,b}", "/v1/c", false],
    ["/v1/a", "/v1/a", true],
    ["/v1/a", "/v1/a/", false],
    ["/", "/", true],
    ["/", "/a", false],
    ["/**", "/", true],
    ["/**", "*", false],
    ["**/x", "/a/b/x", true],
    ["**/x", "/x", true],
    ["**/x", "/a/y", false],
  ])("%s against %s is %s", (pattern, path, expected) => {
    expect(compileRequestPath(pattern)(path)).toBe(expected);
  });
});
