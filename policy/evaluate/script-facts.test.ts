// Scripts of which it is not known which they are, programs that the dynamic loader is given, and what interpreters run.

import { describe, expect, test } from "vitest";
import { type ExecAction, ExecCode } from "../../proto/gen/clawsec/v1/loader.js";
import { evaluate } from "../evaluate.js";
import { exec, policy } from "../testing/policy.js";

describe("scripts that are not known, loaders, and code", () => {
  const answer = (rules: string, facts: Partial<ExecAction>) =>
    evaluate(policy(`exec:\n${rules}\n  - { id: rest, executable: "/usr/**", action: allow }`), exec(facts))
      .rule;
  const unknown = { executable: "/usr/bin/dash", scriptUnknown: "it is not known", code: ExecCode.FILE };

  test.each(["script: /srv/x", "executable: /srv/x", "inWorkspace: true", `sha256: "${"a".repeat(64)}"`])(
    "a denial by %s matches where the script is not known, and only there",
    (fact) => {
      const rules = `  - { id: no, ${fact}, action: deny }`;
      const hash = { executableSha256: "b".repeat(64) };
      expect(answer(rules, { ...unknown, ...hash })).toBe("exec/no");
      expect(answer(rules, { ...unknown, ...hash, scriptUnknown: "" })).toBe("exec/rest");
    },
  );

  test.each(["script: /srv/x", "inWorkspace: false, script: /**"])(
    "a permission by %s does not match where the script is not known",
    (fact) => {
      const rules = `  - { id: yes, ${fact}, executable: /usr/bin/dash, action: allow }`;
      expect(answer(rules, { ...unknown, script: "/srv/x" })).toBe("exec/rest");
      expect(answer(rules, { ...unknown, script: "/srv/x", scriptUnknown: "" })).toBe("exec/yes");
    },
  );

  test("a denial names the program or the loader, and a permission both", () => {
    const facts = { executable: "/usr/bin/git", loader: "/usr/lib/ld.so" };
    for (const path of ["/usr/bin/git", "/usr/lib/ld.so"]) {
      expect(answer(`  - { id: no, executable: ${path}, action: deny }`, facts)).toBe("exec/no");
      expect(answer(`  - { id: yes, executable: ${path}, action: allow }`, facts)).toBe("exec/rest");
    }
    const both = "  - { id: yes, executable: [/usr/bin/git, /usr/lib/ld.so], action: allow }";
    expect(answer(both, facts)).toBe("exec/yes");
    expect(answer(both, { ...facts, loader: "/home/agent/ld.so" })).toBe("exec/default");
  });

  test("code is told apart, and what is not known is restricted", () => {
    const rules = "  - { id: no, code: [inline, stream], action: deny }";
    const by = (code: ExecCode) => answer(rules, { executable: "/usr/bin/dash", code });
    expect(by(ExecCode.INLINE)).toBe("exec/no");
    expect(by(ExecCode.STREAM)).toBe("exec/no");
    expect(by(ExecCode.UNKNOWN)).toBe("exec/no");
    expect(by(ExecCode.FILE)).toBe("exec/rest");
    expect(by(ExecCode.MODULE)).toBe("exec/rest");
    expect(by(ExecCode.UNSPECIFIED)).toBe("exec/rest");
  });
});
