// Ways to run a program that a rule denies: by its path, by its content, by its arguments.

import { NODE } from "../place.js";
import { call, type Family, ran, type Subject, sh, type Way } from "../way.js";

const GATE = "exec gate: identity of the file that the kernel loads";
const VERIFY = "BPF exec verify: what runs is what was approved";
const FILTER = "seccomp filter";
const RULE = "exec rule of the pack";
const BROKER: readonly Subject[] = ["broker"];

const HASH = { DENIED: "/opt/escape/denied/by-hash" };

/** A denial by path, and other ways to the same path. */
const names: readonly Way[] = [
  call("exec-spawn", "posix_spawn of a denied program", GATE, ran),
  call("exec-vfork", "vfork and execve of a denied program", GATE, ran),
  call("exec-thread", "execve by a thread that is not the first", GATE, ran),
  call("exec-orphan", "execve by an orphan in a session of its own", GATE, ran),
  call("exec-argc0", "execve without any argument", GATE, ran),
  sh("exec-relative", "a relative path", GATE, ran, "cd /opt/escape/denied && ./by-path"),
  sh(
    "exec-dots",
    "dots and doubled slashes in the path",
    GATE,
    ran,
    "/opt/escape/bin/.././/denied/../denied//by-path",
  ),
  sh("exec-symlink", "a symbolic link to it", GATE, ran, 'ln -s "$DENIED" harmless && ./harmless'),
  sh(
    "exec-symlink-chain",
    "a chain of symbolic links to its folder",
    GATE,
    ran,
    "ln -s /opt/escape/denied a && ln -s a b && ln -s b c && c/by-path",
  ),
  sh("exec-self-root", "/proc/self/root before the path", GATE, ran, '"/proc/self/root$DENIED"'),
  sh("exec-first-root", "/proc/1/root before the path", GATE, ran, '"/proc/1/root$DENIED"'),
  sh(
    "exec-self-cwd",
    "/proc/self/cwd as its folder",
    GATE,
    ran,
    "cd /opt/escape/denied && exec /proc/self/cwd/by-path",
  ),
  sh(
    "exec-deep",
    "a denied folder 40 levels up",
    GATE,
    ran,
    'cd /opt/escape/denied/deep && while cd d 2>/dev/null; do :; done; "./program"',
  ),
  sh("exec-argv0", "another name in argv[0]", GATE, ran, '(exec -a /usr/bin/true "$DENIED")'),
  call("exec-directory", "execveat with a folder's descriptor", GATE, ran),
  call("exec-fexecve", "fexecve of an open descriptor", GATE, ran),
  call("exec-opath", "execveat of an O_PATH descriptor", GATE, ran),
  call("exec-devfd", "/dev/fd/N", GATE, ran),
  call("exec-procfd", "/proc/PID/fd/N of another process", GATE, ran),
  sh(
    "exec-loader",
    "the dynamic loader with the program as its argument",
    GATE,
    ran,
    '$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null) "$DENIED"',
    { environment: { DENIED: "/opt/escape/denied/by-path-dynamic" } },
  ),
  sh(
    "exec-loader-option",
    "the dynamic loader with options before the program",
    GATE,
    ran,
    '$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null) --argv0 true --library-path /usr/lib "$DENIED"',
    { environment: { DENIED: "/opt/escape/denied/by-path-dynamic" } },
  ),
];

/** A denial by content, and other files with the same content. */
const copies: readonly Way[] = [
  sh("exec-copy", "a copy elsewhere", GATE, ran, 'cp "$DENIED" copy && ./copy', { environment: HASH }),
  sh(
    "exec-copy-trusted",
    "a copy with the name of a program that is trusted",
    GATE,
    ran,
    'cp "$DENIED" apt-get && PATH=.:$PATH apt-get',
    { environment: HASH },
  ),
  sh("exec-hard-link", "a hard link to a copy", GATE, ran, 'cp "$DENIED" copy && ln copy other && ./other', {
    environment: HASH,
  }),
  sh(
    "exec-renamed",
    "a copy renamed after it was refused",
    GATE,
    ran,
    'cp "$DENIED" a && ./a; mv a b && ./b',
    {
      environment: HASH,
    },
  ),
  call("exec-memfd", "a copy in memory (memfd_create)", GATE, ran),
  call("exec-deleted", "a copy whose name was removed", GATE, ran, { environment: HASH }),
  call("exec-tmpfile", "a copy that never had a name (O_TMPFILE)", GATE, ran, { environment: HASH }),
  sh(
    "exec-shm",
    "a copy on a tmpfs",
    "mount view: noexec",
    ran,
    'cp "$DENIED" "/dev/shm/$TOKEN"; "/dev/shm/$TOKEN"; rm -f "/dev/shm/$TOKEN"',
  ),
];

/** Scripts and arguments. */
const words: readonly Way[] = [
  sh(
    "script-interpreter",
    "a script whose interpreter is denied",
    GATE,
    ran,
    'echo "#!$DENIED" > s && chmod +x s && ./s',
  ),
  sh(
    "script-nested",
    "a script whose interpreter is such a script",
    GATE,
    ran,
    'echo "#!$DENIED" > s && echo "#!$PWD/s" > t && chmod +x s t && ./t',
  ),
  sh(
    "script-env",
    "#!/usr/bin/env -S with the denied program",
    GATE,
    ran,
    'echo "#!/usr/bin/env -S $DENIED x" > s && chmod +x s && ./s',
  ),
  sh("script-denied", "a denied script by its path", GATE, ran, "/opt/escape/denied/script"),
  sh(
    "script-symlink",
    "a denied script by a symbolic link",
    GATE,
    ran,
    "ln -s /opt/escape/denied/script s && ./s",
  ),
  ...(
    [
      ["bash", "bash with a denied script as its argument", 'bash "$DENIED"', "script"],
      ["sh", "sh with a denied script as its argument", 'sh "$DENIED"', "script"],
      ["bash-options", "bash with options before the script", 'bash --norc -x -- "$DENIED"', "script"],
      ["env-bash", "env that starts bash with the script", 'env X=1 bash "$DENIED"', "script"],
      ["python", "python3 with a denied script as its argument", 'python3 "$DENIED"', "script.py"],
      ["node", "node with a denied script as its argument", `${NODE} "$DENIED"`, "script.js"],
      [
        "bash-rcfile",
        "bash that is told to read it when it starts",
        'bash --rcfile "$DENIED" -i < /dev/null',
        "script",
      ],
      [
        "taken-back",
        "dash whose option -s is taken back before the script",
        'dash -s +s "$DENIED"',
        "script",
      ],
      [
        "no-value",
        "node with a script of its own behind an option that takes no value",
        `: > own.js && ${NODE} --http-parser "$DENIED" own.js`,
        "script.js",
      ],
      [
        "vanished",
        "bash that looks in PATH while a script of its own vanishes again and again",
        `echo true > script; (while :; do mv script away; mv away script; done) & moves=$!
          for i in 1 2 3 4 5 6 7 8 9 10; do for j in 1 2 3 4 5 6 7 8 9 10; do PATH=/opt/escape/denied:$PATH bash script; done; done; kill $moves`,
        "script",
      ],
      ["python-prompt", "python3 with a prompt after it", 'python3 -i "$DENIED" < /dev/null', "script.py"],
      [
        "node-env-file",
        "node whose file of variables names it",
        `echo "NODE_OPTIONS=--require=$DENIED" > e && : > m.js && ${NODE} --env-file=e m.js`,
        "script.js",
      ],
    ] as const
  ).map(([name, tries, text, script]) =>
    sh(`script-${name}`, tries, GATE, ran, text, { environment: { DENIED: `/opt/escape/denied/${script}` } }),
  ),
  call("exec-bad-argv", "an argument that a rule denies", GATE, ran),
  call("exec-big-argv", "the denied argument behind a megabyte of others", GATE, ran),
];

/** Ways into the kernel that a filter by number does not see. */
const numbers: readonly Way[] = [
  call("exec-x32", "execve by its x32 number", FILTER, ran, { control: "root", needs: "has-x32" }),
  call("exec-int80", "execve by int 0x80", FILTER, ran, { needs: "has-int80" }),
];

/** Changes between the look and the run. */
const races: readonly Way[] = [
  call("race-path-thread", "another thread changes the path", VERIFY, ran),
  call("race-path-process", "another process changes the path in shared memory", VERIFY, ran),
  call("race-argv-thread", "another thread changes an argument", VERIFY, ran),
  call("race-argv-process", "another process changes an argument in shared memory", VERIFY, ran),
  call("race-argv-vector", "another thread changes the vector of arguments", VERIFY, ran),
  call("race-symlink", "a symbolic link that leads elsewhere all the time", VERIFY, ran),
  call("race-rename", "two files that exchange their names all the time", VERIFY, ran, { environment: HASH }),
  call("race-flood", "60 processes at once, whose path changes", VERIFY, ran),
  call("race-folder", "two folders that exchange their names all the time", VERIFY, ran),
  call(
    "race-mount",
    "another program mounted over the path all the time, as root of a user namespace",
    FILTER,
    ran,
  ),
].map((way) => ({ ...way, subjects: ["tool"], timeoutMs: 8000 }));

/** What the pack says about programs of the host. */
const pack: readonly Way[] = [
  sh(
    "pack-setpriv",
    "a program that becomes another user",
    RULE,
    ran,
    'setpriv --no-new-privs sh -c "echo $TOKEN > $MARK"',
  ),
  sh("pack-unshare", "a program that makes namespaces", RULE, ran, 'unshare sh -c "echo $TOKEN > $MARK"', {
    control: "root",
  }),
  sh("pack-chroot", "a program that changes the root", RULE, ran, 'chroot / sh -c "echo $TOKEN > $MARK"', {
    control: "root",
  }),
  sh("pack-held", "a held program that nobody approves", "exec gate: hold", ran, "/opt/escape/denied/held"),
  sh(
    "pack-held-continue",
    "SIGCONT to a held program, again and again",
    "exec gate: hold",
    ran,
    "/opt/escape/denied/held & for i in 1 2 3 4 5 6 7 8 9; do kill -CONT $!; sleep 0.1; done; wait",
  ),
  sh(
    "pack-held-orphan",
    "a held program whose parent has died",
    "exec gate: hold",
    ran,
    "(setsid /opt/escape/denied/held &) ; sleep 4",
  ),
  ...(["gateway", "broker"] as const).map(
    (subject): Way => ({
      id: `pack-${subject}-program`,
      tries: `a program of the host as the ${subject}`,
      layer: RULE,
      program: {
        kind: "js",
        text: 'const { spawnSync } = await import("node:child_process"); const r = spawnSync("/usr/bin/sh", ["-c", "echo $TOKEN > $MARK"], { env: { ...process.env, ...environment } }); say(String(r.error ?? r.status));',
      },
      subjects: subject === "broker" ? BROKER : ["gateway"],
      effect: ran,
      control: "plain",
    }),
  ),
];

export const execFamily: Family = {
  name: "exec",
  ways: [...names, ...copies, ...words, ...numbers, ...races, ...pack],
};
