import { describe, expect, test } from "vitest";
import { compileArgv } from "./argv.js";
import { formatCidr, inCidr, parseAddress, parseCidr } from "./cidr.js";
import { compileText, escapeGlob } from "./glob.js";
import { hostPatternError, matchHost, normalizeHost } from "./host.js";
import { between, compilePath, isCanonical, pathPatternError, patternScopes } from "./path.js";

describe("path patterns", () => {
  const glob = (pattern: string, path: string) => compilePath(pattern, { subtree: false })(path);
  test.each([
    ["/usr/bin/git", "/usr/bin/git", true],
    ["/usr/bin/git", "/usr/bin/gitk", false],
    ["/usr/bin/git", "/usr/bin/git/x", false],
    ["/usr/bin/*", "/usr/bin/git", true],
    ["/usr/bin/*", "/usr/bin/a/b", false],
    ["/usr/bin/*", "/usr/bin", false],
    ["/usr/bin/*", "/usr/bin/.hidden", true],
    ["/usr/**", "/usr/bin/git", true],
    ["/usr/**", "/usr", false],
    ["/usr/**", "/usrlocal/bin", false],
    ["/usr/**/git", "/usr/git", true],
    ["/usr/**/git", "/usr/a/b/git", true],
    ["/usr/**/git", "/usr/a/b/gitk", false],
    ["**/.env", "/.env", true],
    ["**/.env", "/a/b/.env", true],
    ["**/.env", "/a/b/x.env", false],
    ["/a/?/c", "/a/b/c", true],
    ["/a/?/c", "/a/bb/c", false],
    ["/a/{x,y*}/c", "/a/yz/c", true],
    ["/a/{x,y*}/c", "/a/z/c", false],
    ["/a/\\*", "/a/*", true],
    ["/a/\\*", "/a/b", false],
    ["/pages/[id].tsx", "/pages/[id].tsx", true],
    ["/pages/[id].tsx", "/pages/i.tsx", false],
    ["/a/*", "/a/line\nbreak", true],
    ["/**", "/x", true],
  ])("%s against %j is %s", (pattern, path, matches) => {
    expect(glob(pattern, path)).toBe(matches);
  });

  test("a path that is not canonical matches nothing, not even everything", () => {
    for (const path of ["", "usr/bin", "/usr//bin", "/usr/../etc", "/usr/.", "/usr/", "/a\0b"]) {
      expect(isCanonical(path)).toBe(false);
      expect(glob("/**", path)).toBe(false);
    }
    expect(glob("/**", "/usr/bin")).toBe(true);
  });

  test("as a subtree a plain path stands for all below it, and only for that", () => {
    const tree = compilePath("/home/a", { subtree: true });
    expect(["/home/a", "/home/a/b/c"].map(tree)).toEqual([true, true]);
    expect(["/home/ab", "/home", "/home/a/../b"].map(tree)).toEqual([false, false, false]);
  });

  test("what is no pattern is said", () => {
    expect(pathPatternError("usr/bin")).toBe('it must be absolute, or start with "**/"');
    expect(pathPatternError("/a//b")).toBe('it has an empty segment ("//" or a "/" at the end)');
    expect(pathPatternError("/a/../b")).toBe('it has ".." as a segment');
    expect(pathPatternError("/a/b**")).toBe('"**" must be a whole segment');
    expect(pathPatternError("/a/{b")).toBe('the pattern has a "{" without its "}"');
    expect(pathPatternError("/a/b}")).toBe('the pattern has a "}" without its "{"');
    expect(pathPatternError(`/${"{a,b}".repeat(7)}`)).toBe("the pattern has more than 64 alternatives");
    expect(pathPatternError("/a/{b,c}/**")).toBeUndefined();
  });

  test("the fixed part of a pattern is the folder in which all its matches lie", () => {
    expect(patternScopes("/a/b")).toEqual([{ tree: "/a/b", exact: true }]);
    expect(patternScopes("/a/b/**")).toEqual([{ tree: "/a/b", exact: true }]);
    expect(patternScopes("/a/*/b")).toEqual([{ tree: "/a", exact: false }]);
    expect(patternScopes("**/.env")).toEqual([{ tree: "/", exact: false }]);
    expect(patternScopes("/a/{x,y}")).toEqual([
      { tree: "/a/x", exact: true },
      { tree: "/a/y", exact: true },
    ]);
    expect(patternScopes("/a\\*b")).toEqual([{ tree: "/a*b", exact: true }]);
  });

  test("folders between a mount and a path are all of them, without the ends", () => {
    expect(between("/h", "/h/a/b/c")).toEqual(["/h/a", "/h/a/b"]);
    expect(between("/", "/a/b")).toEqual(["/a"]);
    expect(between("/h", "/h")).toEqual([]);
  });

  test("many stars against a long name come to an end", () => {
    // That it ends is what is tested: one that goes back for each star takes longer than anybody waits.
    expect(compileText(`${"*a".repeat(500)}b`)("a".repeat(20_000))).toBe(false);
    expect(compilePath(`/${"**/a/".repeat(200)}b`, { subtree: false })(`/${"a/".repeat(2000)}c`)).toBe(false);
  });

  test("an escaped text matches itself and nothing else", () => {
    for (const text of ["*", "a?b", "{x,y}", "back\\slash", "**", "}"]) {
      expect(compileText(escapeGlob(text))(text)).toBe(true);
      expect(compileText(escapeGlob(text))(`${text}x`)).toBe(false);
    }
  });
});

describe("argument patterns", () => {
  test.each([
    [["*", "push", "**"], ["git", "push"], true],
    [["*", "push", "**"], ["git", "push", "-f", "x"], true],
    [["*", "push", "**"], ["git", "-c", "a=b", "push"], false],
    [["*", "**", "push", "**"], ["git", "-c", "a=b", "push", "o"], true],
    [["*", "**", "push", "**"], ["git", "pushy"], false],
    [["*", "push"], ["git", "push", "x"], false],
    [["*"], [], false],
    [["**"], [], true],
    [["*", "--*=/etc/*"], ["x", "--file=/etc/a/b"], true],
    [["*", "{a,b}"], ["x", "b"], true],
    [["*", "{a,b}"], ["x", "c"], false],
    [["*", ""], ["x", ""], true],
    [["*", "\\*"], ["x", "*"], true],
    [["*", "\\*\\*"], ["x", "**"], true],
    [["*", "\\*\\*"], ["x"], false],
  ] as [string[], string[], boolean][])("%j against %j is %s", (patterns, argv, matches) => {
    expect(compileArgv(patterns)(argv)).toBe(matches);
  });
});

describe("hosts", () => {
  test.each([
    ["x.com", "x.com", true],
    ["x.com", "X.COM.", true],
    ["x.com", "a.x.com", false],
    ["x.com", "x.com.evil.net", false],
    ["*.x.com", "a.x.com", true],
    ["*.x.com", "a.b.x.com", true],
    ["*.x.com", "x.com", false],
    ["*.x.com", "evilx.com", false],
    ["*.x.com", ".x.com", false],
    ["*.x.com", "a.x.com.evil.net", false],
    ["*", "anything.example", true],
    ["*", "", false],
    ["*", "not a host", false],
    ["k.com", "\u212a.com", false],
  ])("%s against %s is %s", (pattern, host, matches) => {
    expect(matchHost(pattern, host)).toBe(matches);
  });

  test("what is no host pattern is said", () => {
    expect(hostPatternError("1.2.3.4")).toBe('addresses go into "cidr", not "host"');
    expect(hostPatternError("::1")).toBe('addresses go into "cidr", not "host"');
    expect(hostPatternError("a.*.com")).toContain("whole labels at the start only");
    expect(hostPatternError("*x.com")).toContain("whole labels at the start only");
    expect(hostPatternError("https://x.com")).toBeDefined();
    expect(hostPatternError("x.com/path")).toBe("it must be a host name without scheme or path");
    expect(hostPatternError("b\u00fccher.de")).toContain("xn--");
    expect(hostPatternError("a..b")).toBe("it is not a host name");
    expect(hostPatternError(normalizeHost("*.Example.COM."))).toBeUndefined();
  });
});

describe("addresses and CIDRs", () => {
  const inside = (cidr: string, address: string) => {
    const parsed = parseCidr(cidr);
    const peer = parseAddress(address);
    if ("error" in parsed || peer === undefined) throw new Error("bad test");
    return inCidr(parsed, peer);
  };
  test.each([
    ["10.0.0.0/8", "10.255.0.1", true],
    ["10.0.0.0/8", "11.0.0.1", false],
    ["0.0.0.0/0", "255.255.255.255", true],
    ["0.0.0.0/0", "::1", false],
    ["192.0.2.7", "192.0.2.7", true],
    ["192.0.2.7", "192.0.2.8", false],
    ["169.254.0.0/16", "::ffff:169.254.169.254", true],
    ["2001:db8::/32", "2001:db8:1::1", true],
    ["2001:db8::/32", "2001:db9::1", false],
    ["::/0", "1.2.3.4", false],
  ])("%s holds %s: %s", (cidr, address, holds) => {
    expect(inside(cidr, address)).toBe(holds);
  });

  test("ambiguous or malformed addresses are none", () => {
    for (const text of [
      "010.0.0.1",
      "1.2.3",
      "1.2.3.256",
      "1.2.3.4.5",
      "0x7f.1",
      "",
      ":",
      "1::2::3",
      "12345::",
      "::1%eth0",
      "1:2:3:4:5:6:7:8:9",
      "127.1",
    ]) {
      expect(parseAddress(text), text).toBeUndefined();
    }
    for (const text of ["127.0.0.1", "::", "::1", "fe80::1", "1:2:3:4:5:6:7:8", "64:ff9b::1.2.3.4"]) {
      expect(parseAddress(text), text).toBeDefined();
    }
  });

  test("a CIDR with bits after its prefix is refused with the right one", () => {
    expect(parseCidr("10.0.0.1/8")).toEqual({
      error: "it has bits after its prefix; the network is 10.0.0.0/8",
    });
    expect(parseCidr("10.0.0.0/33")).toEqual({ error: "its prefix length must be 0 to 32" });
    expect(parseCidr("::ffff:10.0.0.0/104")).toEqual({ error: "write IPv4-mapped addresses as IPv4" });
  });

  test("each CIDR has one spelling", () => {
    const spell = (text: string) => {
      const cidr = parseCidr(text);
      return "error" in cidr ? cidr.error : formatCidr(cidr);
    };
    expect(spell("2001:0DB8:0:0::/32")).toBe("2001:db8::/32");
    expect(spell("1:0:0:2:0:0:0:3")).toBe("1:0:0:2::3/128");
    expect(spell("::")).toBe("::/128");
    expect(spell("1.2.3.4")).toBe("1.2.3.4/32");
  });
});
