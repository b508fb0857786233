// What the compiler makes of denials by pattern, held against a real kernel: no operation that the policy denies
// succeeds, and each that it permits does.

import { beforeAll, expect, test } from "vitest";
import { apparmorReports } from "./apparmor.ts";
import { lower, lowered, mountsOf } from "./lowering-jobs.ts";
import { type Trial, trials } from "./lowering-random.ts";
import { type Meaning, Meanings } from "./meaning.ts";
import type { Given, Operation, OperationName, Report } from "./operations.ts";
import { needs } from "./operations.ts";
import { describe as words } from "./profiles.ts";
import { describeInMachine } from "./suite.ts";

const seed = Number(process.env.CLAWSEC_SEED ?? 20_261_122);

const file = (path: string): Given => ({ kind: "file", path });
const folder = (path: string): Given => ({ kind: "folder", path });
const each = (path: string, ...ops: OperationName[]): Operation[] =>
  ops.map((op) => ({ op, path, given: needs({ op, path }) }));
const move = (op: "rename" | "link" | "exchange", path: string, to: string): Operation => ({
  op,
  path,
  to,
  given: needs({ op, path, to }),
});

/** What the rules mean is written out for these. */
interface Picked extends Trial {
  readonly title: string;
  readonly wanted: readonly Meaning[];
}

function picked(
  title: string,
  rules: Trial["rules"],
  cases: Readonly<Partial<Record<Meaning, readonly Operation[]>>>,
): Picked {
  const pairs = Object.entries(cases).flatMap(([meaning, all]) =>
    all.map((operation): [Meaning, Operation] => [meaning as Meaning, operation]),
  );
  return { title, rules, operations: pairs.map(([, o]) => o), wanted: pairs.map(([m]) => m) };
}

const changes = [
  "write",
  "append",
  "open-truncate",
  "truncate",
  "create",
  "unlink",
  "chmod",
  "chown",
] as const;
const home = "/home/agent";
const hand: Picked[] = [
  picked("a name that may not be read anywhere", [{ path: ["**/.env"], operations: ["read"] }], {
    denied: [
      ...each(`${home}/.env`, "read", "exec", "map-exec", "lock", "reopen-read"),
      ...each(`${home}/a b/.env`, "read", "list"),
      move("rename", `${home}/.env`, `${home}/env`),
      move("link", `${home}/.env`, `${home}/env`),
      move("link", `${home}/env`, `${home}/.env`),
      move("exchange", `${home}/env`, `${home}/.env`),
      {
        op: "read",
        path: `${home}/s`,
        given: [file(`${home}/.env`), { kind: "symlink", path: `${home}/s`, to: ".env" }],
      },
      // What was removed is judged by the name that it had.
      {
        op: "kept-read",
        path: "",
        given: [file(`${home}/.env`)],
        before: [
          { op: "keep", path: `${home}/.env` },
          { op: "unlink", path: `${home}/.env` },
        ],
      },
      // What was moved along with its folder has its own name still.
      {
        op: "read",
        path: `${home}/q/.env`,
        given: [file(`${home}/p/.env`)],
        before: [{ op: "rename", path: `${home}/p`, to: `${home}/q` }],
      },
      // No name in the view: refused, as no denial could speak of it.
      { op: "outside-read", path: "file", given: [] },
      { op: "outside-write", path: "file", given: [] },
    ],
    allowed: [
      ...each(`${home}/.env`, "write", "create", "unlink", "chmod"),
      ...each(`${home}/.envrc`, "read", "exec"),
      ...each(`${home}/x.env`, "read"),
      ...each(`${home}/.env/x`, "read", "mkdir"),
      // A rename reads what it moves, and not what it replaces: that is a write.
      move("rename", `${home}/env`, `${home}/.env`),
      { op: "rename", path: `${home}/p`, to: `${home}/q`, given: [file(`${home}/p/.env`)] },
    ],
  }),
  picked("names that may not be written", [{ path: [`${home}/**/secret*`], operations: ["write"] }], {
    denied: [
      ...each(`${home}/secret`, ...changes, "mkdir", "rmdir", "mkfifo", "bind"),
      ...each(`${home}/x/y/secret.d`, ...changes, "mkdir", "rmdir"),
      move("link", `${home}/o`, `${home}/secret`),
      move("rename", `${home}/o`, `${home}/secret`),
      move("rename", `${home}/secret`, `${home}/o`),
      { op: "symlink", path: `${home}/secret`, to: "o", given: [folder(home)] },
    ],
    mount: [move("rename", `${home}/x`, "/o/x")],
    allowed: [
      ...each(`${home}/secret`, "read", "exec", "map-exec", "list", "utimes"),
      ...each(`${home}/asecret`, ...changes),
      ...each("/bound/secret", ...changes),
      ...each(`${home}/secret/x`, "read", ...changes),
    ],
  }),
  picked("programs that may not run", [{ path: ["/bound/**/*.sh"], operations: ["exec"] }], {
    denied: [...each("/bound/a.sh", "exec", "map-exec"), move("link", "/bound/a.sh", "/bound/a")],
    allowed: [
      ...each("/bound/a.sh", "read", ...changes),
      ...each("/bound/a", "exec", "map-exec"),
      move("rename", "/bound/a.sh", "/bound/a"),
    ],
  }),
  picked(
    "files below folders of a name",
    [{ path: ["**/private/**", `${home}/*/k/*.key`], operations: ["read", "write"] }],
    {
      denied: [
        ...each(`${home}/private/a/b`, "read", "write", "create", "unlink", "mkdir", "list"),
        ...each(`${home}/d/k/a.key`, "read", "create", "unlink"),
        // The folders of the patterns stay where they are; others in their place could hide or free something.
        { op: "rename", path: `${home}/private`, to: `${home}/public`, given: [file(`${home}/private/f`)] },
        { op: "rename", path: `${home}/d/private`, to: `${home}/d/o`, given: [file(`${home}/d/private/f`)] },
        { op: "rename", path: `${home}/d/k`, to: `${home}/d/o`, given: [file(`${home}/d/k/a.key`)] },
        {
          op: "rename",
          path: `${home}/d`,
          to: `${home}/x/d`,
          given: [file(`${home}/d/k/a.key`), folder(`${home}/x`)],
        },
        {
          op: "exchange",
          path: `${home}/d/k`,
          to: `${home}/x/y/z`,
          given: [folder(`${home}/d/k`), folder(`${home}/x/y/z`)],
        },
        ...each(`${home}/d/k`, "mkdir", "rmdir"),
      ],
      allowed: [
        ...each(`${home}/d/k/a.pub`, "read", "create", "unlink", "write"),
        ...each(`${home}/d/x`, "create", "unlink", "write", "list"),
        ...each(`${home}/d/k`, "list"),
        ...each(`${home}/x/y/z`, "mkdir", "rmdir"),
        {
          op: "rename",
          path: `${home}/d/e/f`,
          to: `${home}/d/e/g`,
          given: [file(`${home}/d/e/f/private/x`)],
        },
      ],
    },
  ),
  picked(
    "files below a folder that is fixed",
    [{ path: [`${home}/state/deep/**/id`], operations: ["read"] }],
    {
      denied: each(`${home}/state/deep/a/id`, "read"),
      mount: [
        { op: "rename", path: `${home}/state`, to: `${home}/o`, given: [file(`${home}/state/deep/a/id`)] },
        {
          op: "rename",
          path: `${home}/state/deep`,
          to: `${home}/o`,
          given: [file(`${home}/state/deep/a/id`)],
        },
        {
          op: "rename",
          path: `${home}/state/deep/a`,
          to: `${home}/o`,
          given: [file(`${home}/state/deep/a/id`)],
        },
      ],
      allowed: [
        ...each(`${home}/state/id`, "read", "mkdir", "create"),
        ...each(`${home}/state/deep/id2`, "read", "create", "mkdir"),
        {
          op: "rename",
          path: `${home}/state/deep/a`,
          to: `${home}/state/deep/b`,
          given: [file(`${home}/state/deep/a/id`)],
        },
      ],
    },
  ),
];

const ofMounts = ["EXDEV", "EBUSY"];

/** All operations of a trial whose verdict is not what is wanted, in words. */
function wrong(trial: Trial, wanted: readonly Meaning[], report: Report | undefined): string[] {
  const { profile } = lowered(trial.rules, trial.operations);
  if (report?.outcome !== "done")
    return [`${report?.outcome ?? "no report"}: ${report?.message ?? ""}\n${profile}`];
  return report.findings.flatMap(({ verdict, unconfined }, index) => {
    const want = wanted[index];
    const byMounts = ofMounts.includes(unconfined);
    const shows = unconfined === "allowed" ? want !== "mount" : byMounts && want !== "allowed";
    const good = shows && (verdict === want || (byMounts && ["denied", ...ofMounts].includes(verdict)));
    if (good) return [];
    const operation = words(trial.operations[index] as Operation);
    return [
      `${verdict} (${unconfined} without), not ${want}: ${operation} under ${JSON.stringify(trial.rules)}\n${profile}`,
    ];
  });
}

const random = trials(seed, 20, 20);
const meaning = ({ rules, operations }: Trial): Meaning[] => {
  const meanings = new Meanings(rules, ["/bound", "/tmpfs", ...new Set([home, ...mountsOf(lower(rules))])]);
  return operations.map((operation) => meanings.operation(operation));
};

describeInMachine("compiled denials by pattern under AppArmor", () => {
  let reports: Report[];
  beforeAll(async () => {
    const jobs = [
      ...hand.map(({ rules, operations }) => lowered(rules, operations, "runc")),
      ...random.map(({ rules, operations }) => lowered(rules, operations)),
    ];
    const begin = performance.now();
    reports = await apparmorReports(jobs, 90_000);
    const all = jobs.reduce((sum, job) => sum + job.operations.length, 0);
    console.info(
      `${jobs.length} policies, ${all} operations, seed ${seed}: ${Math.round(performance.now() - begin)} ms`,
    );
  }, 110_000);

  test.each(hand.map((one, index) => [one.title, one, index] as const))("%s", (_, one, index) => {
    expect(wrong(one, one.wanted, reports[index])).toEqual([]);
  });

  test("mean the same as what the random policies say, whoever asks", () => {
    const failures = random.flatMap((trial, index) =>
      wrong(trial, meaning(trial), reports[hand.length + index]),
    );
    expect(failures).toEqual([]);
  });

  test("were tried on enough that is denied, and enough that is not", () => {
    const count = new Map<Meaning, number>();
    for (const one of random.flatMap(meaning)) count.set(one, (count.get(one) ?? 0) + 1);
    expect(random.reduce((sum, { operations }) => sum + operations.length, 0)).toBeGreaterThanOrEqual(300);
    expect(count.get("denied")).toBeGreaterThan(100);
    expect(count.get("allowed")).toBeGreaterThan(100);
    expect(count.get("mount")).toBeGreaterThan(3);
  });
});
