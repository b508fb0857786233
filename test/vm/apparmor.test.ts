// What AppArmor's permission letters and names mean to a real kernel: what clawsec's profiles rely on.

import { beforeAll, expect, test } from "vitest";
import { apparmorReports, findings } from "./apparmor.ts";
import { cases, each } from "./apparmor-cases.ts";
import type { Job, Report } from "./operations.ts";
import { allowAllBut, expected, jobOf, operations, describe as words } from "./profiles.ts";
import { describeInMachine } from "./suite.ts";

const plain = {
  profileName: "clawsec-test",
  through: "pivot_root",
  operations: each("/x/f", "read"),
} as const;
const broken: [string, Job, RegExp][] = [
  [
    "a profile with an error",
    { ...plain, profile: "profile clawsec-test { nonsense }" },
    /profile refused.*syntax/is,
  ],
  [
    "a profile of another name",
    { ...plain, profile: allowAllBut("clawsec-other", []), profileName: "clawsec-missing" },
    /program not started.*No such file/s,
  ],
  [
    "a profile of another name, for runc",
    { ...plain, through: "runc", profile: allowAllBut("clawsec-other", []), profileName: "clawsec-missing" },
    /program not started.*apparmor/is,
  ],
  [
    "a profile under which the program cannot run",
    { ...plain, profile: allowAllBut("clawsec-test", ["deny network unix,"]) },
    /program not started/,
  ],
  [
    "an operation that fails without the profile, too",
    {
      ...plain,
      profile: allowAllBut("clawsec-test", []),
      operations: [{ op: "read", path: "/none", given: [] }],
    },
    /shows nothing: without a profile it gives ENOENT/,
  ],
];

describeInMachine("AppArmor in a real kernel", () => {
  let reports: Report[];
  beforeAll(async () => {
    reports = await apparmorReports([...cases.map(jobOf), ...broken.map(([, job]) => job)], 90_000);
  }, 110_000);

  test.each(cases.map((one, index) => [one.title, one.through ?? "pivot_root", one, index] as const))(
    "%s (%s)",
    (_title, _through, one, index) => {
      const found = findings(jobOf(one), reports[index]);
      const lines = operations(one).map((operation, at) => `${found[at]?.verdict} ${words(operation)}`);
      expect(lines).toEqual(expected(one));
    },
  );

  test("a denial by `audit deny` is in the kernel's log, with the profile and the path; what is allowed is not", () => {
    for (const [index, one] of cases.entries())
      for (const { verdict, audit } of findings(jobOf(one), reports[index])) {
        if (verdict === "allowed") expect(audit).toEqual([]);
        else
          expect(audit.join("\n")).toMatch(
            /^apparmor="DENIED" operation="\w+" .*profile="clawsec-test" name=\S/,
          );
      }
  });

  test.each(broken.map(([title, job, message], index) => [title, job, message, index] as const))(
    "%s gives an error and no verdict",
    (_, job, message, index) => {
      expect(() => findings(job, reports[cases.length + index])).toThrow(message);
    },
  );
});
