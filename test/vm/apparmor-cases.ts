// Profiles written by hand, and what each is known to deny: letters, names, folders, mounts, bases.

import type { Given, Operation, OperationName, Through } from "./operations.ts";
import { allowAllBut, type Case } from "./profiles.ts";

/** The same path for each operation. */
export const each = (path: string, ...ops: OperationName[]): Operation[] => ops.map((op) => ({ op, path }));
const file = (path: string): Given => ({ kind: "file", path });
const folder = (path: string): Given => ({ kind: "folder", path });

const changes = each(
  "/x/f",
  ...([
    "write",
    "append",
    "open-truncate",
    "truncate",
    "create",
    "create-unnamed",
    "unlink",
    "chmod",
    "fchmod",
  ] as const),
  ...(["chown", "mkdir", "rmdir", "mkfifo", "bind", "reopen-write"] as const),
);
const moves: Operation[] = [
  { op: "rename", path: "/x/f", to: "/o/g" },
  { op: "rename", path: "/o/g", to: "/x/f" },
  { op: "exchange", path: "/x/f", to: "/o/g" },
  { op: "exchange", path: "/o/g", to: "/x/f" },
  { op: "link", path: "/x/f", to: "/o/g" },
  { op: "symlink", path: "/x/f", to: "/o/g" },
];
const linkIn: Operation = { op: "link", path: "/o/g", to: "/x/f" };
const reads = each("/x/f", "read", "list", "lock", "reopen-read");
const runs = each("/x/f", "exec", "map-exec");
// No permission letter of this kernel covers them.
const never = each("/x/f", "stat", "access", "readlink", "utimes", "connect", "path-descriptor", "chdir");
const elsewhere = each("/o/f", "read", "write", "create", "unlink", "exec", "map-exec");

const letters: Case[] = [
  {
    title: "w denies every change but a new hard link and the times",
    denials: ['audit deny "/x/**" w,'],
    through: "runc",
    denied: [...changes, ...moves],
    allowed: [linkIn, ...reads, ...runs, ...never, ...elsewhere],
  },
  {
    title: "wl denies every change but the times",
    denials: ['audit deny "/x/**" wl,'],
    through: "runc",
    denied: [...changes, ...moves, linkIn],
    allowed: [...reads, ...runs, ...never, ...elsewhere],
  },
  {
    title: "r denies reading, listing, and moving or linking it to where it could be read",
    denials: ['audit deny "/x/**" r,'],
    through: "runc",
    denied: [...reads, moves[0], moves[4], ...each("/x/f", "map-exec", "fchmod")].filter(
      (one) => one !== undefined,
    ),
    allowed: [
      ...changes.filter(({ op }) => op !== "fchmod"),
      ...each("/x/f", "exec"),
      ...never,
      ...elsewhere,
    ],
  },
  {
    title: "x denies the exec and not the mapping, so that a loader could still run it",
    denials: ['audit deny "/x/**" x,'],
    through: "runc",
    denied: each("/x/f", "exec"),
    allowed: [...each("/x/f", "map-exec"), ...reads, ...changes, ...elsewhere],
  },
  {
    title: "xm denies the exec and the mapping",
    denials: ['audit deny "/x/**" xm,'],
    through: "runc",
    denied: runs,
    allowed: [...reads, ...changes, ...elsewhere],
  },
];

const program: readonly Given[] = [{ kind: "program", path: "/x/p" }, folder("/o")];
const names: Case = {
  title: "a denied name stays denied however it is reached",
  denials: ['audit deny "/x{,/,/**}" rwl,'],
  denied: [
    { op: "write", path: "/x/f" },
    { op: "write", path: "/proc/self/root/x/f", given: [file("/x/f")] },
    { op: "write", path: "/proc/self/cwd/x/f", given: [file("/x/f")] },
    { op: "write", path: "/o/../x/./f", given: [file("/x/f"), folder("/o")] },
    { op: "write", path: "x/f", given: [file("/x/f")] },
    { op: "write", path: "f", given: [file("/x/f")], before: [{ op: "chdir", path: "/x" }] },
    { op: "write", path: "/o/s", given: [file("/x/f"), { kind: "symlink", path: "/o/s", to: "/x/f" }] },
    { op: "reopen-write", path: "/x/f" },
    { op: "kept-write", path: "", given: [file("/x/f")], before: [{ op: "keep", path: "/x/f" }] },
    { op: "kept-write", path: "f", given: [file("/x/f")], before: [{ op: "keep", path: "/x" }] },
    { op: "rename", path: "/x", to: "/y", given: [file("/x/f")] },
    { op: "rmdir", path: "/x" },
    { op: "list", path: "/x" },
    { op: "chmod", path: "/x", given: [folder("/x")] },
  ],
  allowed: [
    // A name is what AppArmor rules: another one, made by somebody else, is another file to it.
    {
      op: "write",
      path: "/o/l",
      given: [file("/x/f"), folder("/o"), { kind: "link", path: "/o/l", to: "/x/f" }],
    },
    { op: "write", path: "/xf" },
    { op: "write", path: "/o/x/f" },
  ],
};

const folders: Case[] = [
  {
    title: "/x/** is not the folder itself, which can be renamed, and its files with it",
    denials: ['audit deny "/x/**" rwl,'],
    denied: [
      { op: "write", path: "/x/f" },
      { op: "chmod", path: "/x/d", given: [folder("/x/d")] },
    ],
    allowed: [
      { op: "rename", path: "/x", to: "/y", given: [file("/x/f")] },
      { op: "write", path: "/y/f", given: [file("/x/f")], before: [{ op: "rename", path: "/x", to: "/y" }] },
      { op: "list", path: "/x" },
      { op: "rmdir", path: "/x" },
    ],
  },
  {
    title: "w on the folders above keeps a denied path in its place, and what else is in them free",
    denials: ['audit deny "/a/b/x{,/,/**}" rwl,', 'audit deny "/{a/,a/b/}" w,'],
    denied: [
      { op: "write", path: "/a/b/x/f" },
      { op: "rename", path: "/a/b/x", to: "/a/b/z", given: [file("/a/b/x/f")] },
      { op: "rename", path: "/a/b", to: "/a/z", given: [file("/a/b/x/f")] },
      { op: "rename", path: "/a", to: "/z", given: [file("/a/b/x/f")] },
      { op: "exchange", path: "/a/b", to: "/o/d", given: [file("/a/b/x/f"), folder("/o/d")] },
      { op: "chmod", path: "/a/b", given: [folder("/a/b")] },
    ],
    allowed: [
      ...each("/a/b/n", "create", "mkdir", "unlink", "rmdir", "write"),
      ...each("/a/n", "create", "mkdir"),
      { op: "rename", path: "/a/b/n", to: "/a/b/m" },
      { op: "list", path: "/a/b" },
    ],
  },
  {
    title: "a folder's name ends with a slash, and no other name does",
    denials: ['audit deny "/x/" rw,', 'audit deny "/y" rw,'],
    denied: [...each("/x", "mkdir", "rmdir", "list"), ...each("/y", "create", "unlink", "chmod")],
    allowed: [...each("/y", "mkdir", "rmdir", "list"), ...each("/x", "create", "unlink", "chmod")],
  },
  {
    title: "x alone does not follow a program that is renamed",
    denials: ['audit deny "/x/**" x,'],
    denied: [
      { op: "exec", path: "/o/p", given: [...program, { kind: "symlink", path: "/o/p", to: "/x/p" }] },
    ],
    allowed: [
      { op: "exec", path: "/o/p", given: program, before: [{ op: "rename", path: "/x/p", to: "/o/p" }] },
    ],
  },
  {
    title: "a more precise rule that allows does not lift a denial, whatever their order",
    denials: ['"/x/open" rw,', 'audit deny "/x/**" w,', '"/x/open2" rw,'],
    denied: [...each("/x/open", "write"), ...each("/x/open2", "write")],
    allowed: each("/x/open", "read"),
  },
  {
    title: "a file in an allowed folder can be denied by its name in every folder",
    denials: ['audit deny "/{,**/}.env" rwl,'],
    denied: [
      ...each("/.env", "read", "write", "create"),
      ...each("/o/.env", "read", "unlink"),
      ...each("/o/p/q/.env", "read"),
      { op: "rename", path: "/o/.env", to: "/o/env" },
      { op: "rename", path: "/o/env", to: "/o/.env" },
      {
        op: "read",
        path: "/p/.env",
        given: [file("/o/.env")],
        before: [{ op: "rename", path: "/o", to: "/p" }],
      },
    ],
    allowed: [...each("/o/.envrc", "read", "write"), ...each("/o/a.env", "read", "write")],
  },
];

// Mounts of the view: AppArmor names a file by where it is in the view, not by where it comes from.
const mounts = (through: Through): Case => ({
  title: "a path on a tmpfs and on a bind mount is denied by its name in the view",
  denials: [
    'audit deny "/tmpfs/x/**" rwl,',
    'audit deny "/bound/x/**" rwl,',
    'audit deny "/run/view-outside/**" w,',
  ],
  through,
  denied: [
    ...each("/tmpfs/x/f", "read", "write", "create", "unlink"),
    ...each("/bound/x/f", "read", "write", "create", "unlink"),
    // A descriptor from outside the view: named from the root of the namespace it came from.
    { op: "outside-write", path: "file" },
  ],
  allowed: [
    ...each("/tmpfs/o/f", "read", "write", "create", "unlink", "exec"),
    ...each("/bound/o/f", "read", "write", "create", "unlink", "exec"),
    { op: "outside-read", path: "file" },
    // mediate_deleted: a removed file is judged by the name that it had.
    {
      op: "kept-read",
      path: "",
      given: [file("/o/f")],
      before: [
        { op: "keep", path: "/o/f" },
        { op: "unlink", path: "/o/f" },
      ],
    },
  ],
});

const withoutFlags = allowAllBut("clawsec-test", []).replace(/ flags=\S+/, "");
const rulesForAllPaths = allowAllBut("clawsec-test", []).replace("file,", "/** rwlkm, /** ix,");
const bases: Case[] = [
  {
    title: "without attach_disconnected, what lies outside the view is denied",
    denials: [],
    profile: withoutFlags,
    through: "runc",
    denied: each("file", "outside-read", "outside-write"),
    allowed: each("/x/f", "read", "write", "exec"),
  },
  {
    title: "/** is every path but the root folder itself",
    denials: [],
    profile: rulesForAllPaths,
    denied: each("/", "list"),
    allowed: [...each("/x/f", "read", "write", "exec", "unlink", "map-exec", "lock"), ...each("/x", "list")],
  },
  {
    title: "file, network and unix together deny nothing that the program does",
    denials: [],
    through: "runc",
    allowed: [...changes, ...moves, linkIn, ...reads, ...runs, ...never, ...each("/", "list")],
  },
];

/** All of them. */
export const cases: Case[] = [
  ...bases,
  ...letters,
  names,
  { ...names, through: "runc" },
  ...folders,
  mounts("pivot_root"),
  mounts("runc"),
];
