// Ways to read or change files that the policy takes away: every call that speaks of a path, and detours to it.

import {
  call,
  changed,
  type Effect,
  type Family,
  js,
  read,
  sh,
  shown,
  type Victim,
  type Way,
  written,
} from "../way.js";

const MOUNT = "mount view: a read-only mount over the path";
const MASK = "mount view: a mask over the path";
const FANOTIFY = "fanotify: each open is asked about";
const FILTER = "seccomp filter";
const NOT_THERE = "mount view: it is not there";

const on = (victim: Victim, name?: string) => (name === undefined ? { victim } : { victim, name });

/** One way for each call that changes a file, each tried by a tool (Landlock stands before the mount) and the gateway. */
const locked: readonly Way[] = (
  [
    ["write-open", "open to write"],
    ["write-legacy", "the older open call"],
    ["write-creat", "creat"],
    ["read-truncate", "open to read, and truncated by O_TRUNC"],
    ["cut", "truncate by path"],
    ["reopen", "/proc/self/fd/N of an O_PATH descriptor"],
    ["map-shared", "a shared mapping"],
    ["copy-range", "copy_file_range"],
    ["send-file", "sendfile"],
    ["remove-file", "unlink"],
    ["rename-away", "rename to elsewhere"],
    ["rename-over", "another file renamed over it"],
    ["exchange", "renameat2 that exchanges two files"],
    ["over-from-beside", "a new file beside it, renamed over it"],
    ["hard-link", "a hard link, and a write to that"],
    ["link-descriptor", "linkat of a descriptor, and a write to that"],
    ["mode", "chmod"],
    ["mode-descriptor", "fchmod of a descriptor that reads"],
    ["rename-folder", "its folder renamed, another in its place"],
    ["rename-grandparent", "the folder above renamed, another in its place"],
    ["move-guard", "the guarded folder itself moved"],
    ["symbolic-folder", "a symbolic link to its folder"],
    ["from-self-root", "/proc/self/root before the path"],
  ] as const
).map(([name, tries]) => call(`file-${name}`, `a locked file: ${tries}`, MOUNT, changed, on("locked", name)));

const rings: readonly Way[] = (
  [
    ["ring-write", "openat"],
    ["ring-remove", "unlinkat"],
    ["ring-rename", "renameat"],
  ] as const
).map(([name, tries]) =>
  call(`file-${name}`, `a locked file: ${tries} by io_uring`, MOUNT, changed, on("locked", name)),
);

/** The same where nothing stands but the filter: opens that no one else would see. */
const filtered: readonly Way[] = [
  call(
    "guarded-ring",
    "a guarded file: openat by io_uring",
    FILTER,
    read("victim"),
    on("guarded", "ring-read"),
  ),
  call("file-x32", "a locked file: open by its x32 number", MOUNT, changed, {
    ...on("locked", "write-x32"),
    control: "root",
    needs: "has-x32",
  }),
  call("file-int80", "a locked file: open by int 0x80", MOUNT, changed, {
    ...on("locked", "write-int80"),
    needs: "has-int80",
  }),
  call("file-attribute", "a locked file: setxattr", MOUNT, shown, on("locked", "attribute")),
];

const others: readonly Way[] = [
  call(
    "read-only-write",
    "a file of a read-only mount: open to write",
    MOUNT,
    changed,
    on("read-only", "write-open"),
  ),
  call("read-only-cut", "a file of a read-only mount: truncate", MOUNT, changed, on("read-only", "cut")),
  call(
    "read-only-link",
    "a file of a read-only mount: removed",
    MOUNT,
    changed,
    on("read-only", "remove-file"),
  ),
];

const victim = read("victim");
const masks: readonly Way[] = (
  [
    ["read-open", "open"],
    ["read-map", "a mapping"],
    ["reopen-read", "/proc/self/fd/N of an O_PATH descriptor"],
    ["hard-link-read", "a hard link"],
    ["read-self-root", "/proc/self/root before the path"],
    ["read-first-root", "/proc/1/root before the path"],
    ["move-guard-read", "the folder itself moved"],
    ["ring-read", "openat by io_uring"],
  ] as const
).map(([name, tries]) => call(`masked-${name}`, `a masked file: ${tries}`, MASK, victim, on("masked", name)));

const guarded: readonly Way[] = (
  [
    ["read-open", "open"],
    ["read-map", "a mapping"],
    ["reopen-read", "/proc/self/fd/N of an O_PATH descriptor"],
    ["hard-link-read", "a hard link"],
    ["read-self-root", "/proc/self/root before the path"],
    ["move-guard-read", "the folder itself moved"],
  ] as const
).map(([name, tries]) =>
  call(`guarded-${name}`, `a guarded file: ${tries}`, FANOTIFY, victim, on("guarded", name)),
);

const effect = (kind: Effect) => kind;

const outside: readonly Way[] = [
  sh("outside-write", "a file of the host by its path", NOT_THERE, written, 'echo x > "$OUTSIDE/$TOKEN"'),
  sh(
    "outside-read",
    "a file of the host by its path, read",
    NOT_THERE,
    read("outside"),
    'cat "$OUTSIDE/words"',
  ),
  sh(
    "outside-first",
    "a file of the host by /proc/1/root",
    NOT_THERE,
    read("outside"),
    'cat "/proc/1/root$OUTSIDE/words" "/proc/1/cwd$OUTSIDE/words"; for f in /proc/[0-9]*/fd/*; do cat "$f/../../../../../../../$OUTSIDE/words"; done 2>/dev/null',
  ),
  sh(
    "outside-symlink",
    "a symbolic link to a file of the host",
    NOT_THERE,
    read("outside"),
    'ln -s "$OUTSIDE" out; cat out/words; ln -s "../../../../../../../../../../$OUTSIDE" up; cat up/words',
  ),
  sh(
    "outside-descriptor",
    "folders that somebody left open",
    NOT_THERE,
    read("outside"),
    'cat /proc/self/fd/*/../words "$OUTSIDE/words" /proc/self/fd/*"$OUTSIDE/words" 2>/dev/null',
  ),
  sh(
    "host-environment",
    "the environment of who started it",
    "OCI configuration: an environment of its own",
    read("host environment"),
    "cat /proc/self/environ /proc/1/environ; env",
  ),
  sh(
    "policy-edit",
    "the policy that binds it, changed",
    NOT_THERE,
    effect(written),
    'echo "# $TOKEN" >> "$POLICY"; cp "$POLICY" "$OUTSIDE/$TOKEN"',
  ),
  sh(
    "kernel-setting",
    "a setting of the kernel",
    "OCI configuration: /proc/sys is read-only",
    shown,
    'f=/proc/sys/kernel/shm_rmid_forced; was=$(cat $f); echo $((1 - was)) > $f && [ "$(cat $f)" != "$was" ] && echo "effect $TOKEN"; echo "$was" > $f',
    { control: "root" },
  ),
];

/** Files that run elsewhere, later: as the user, outside. */
const later: readonly Way[] = [".bashrc", ".bash_profile", ".profile"].map((name) =>
  js(
    `later${name.replace("_", "-")}`,
    `~/${name}, which the user's shell reads`,
    MOUNT,
    shown,
    `const fs = await import("node:fs"); const f = "/home/agent/${name}"; fs.appendFileSync(f, "# " + environment.TOKEN + "\\n"); if (fs.readFileSync(f, "utf8").includes(environment.TOKEN)) say("effect " + environment.TOKEN);`,
  ),
);

export const filesFamily: Family = {
  name: "files",
  ways: [...locked, ...rings, ...filtered, ...others, ...masks, ...guarded, ...outside, ...later],
};
