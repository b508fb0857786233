// Debian's user-mode-linux: a kernel with AppArmor that runs as a process of the host.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Monitor } from "./monitor.ts";

/** Where install.sh puts the machine's parts. */
export const cache = join(process.env.CLAWSEC_CACHE ?? "/var/cache/clawsec", "vm");

/** It has no BTF and no BPF-LSM. */
export const userModeLinux: Monitor = {
  cache,
  timeoutMs: 45_000,
  bootAttempts: 1,
  whyMissing() {
    return existsSync(join(cache, ".complete")) ? undefined : `${cache} is not there; run test/vm/install.sh`;
  },
  start(control, kernelArguments) {
    const command = [
      join(cache, "linux.uml"),
      ...[
        "mem=768M",
        "root=/dev/root",
        "rootfstype=hostfs",
        "ro",
        "quiet",
        "panic=-1",
        "lsm=landlock,yama,apparmor",
      ],
      // Kernel messages and the command's two outputs, each on a descriptor of its own.
      ...[
        "con=null",
        "con0=null,fd:2",
        "ssl=null",
        "ssl0=null,fd:3",
        "ssl1=null,fd:4",
        `uml_dir=${control}/uml`,
      ],
      `init=${join(cache, "busybox")}`,
      ...kernelArguments,
      ...["--", "sh", join(control, "init.sh"), cache, control],
    ];
    // Its memory is a file there: on a disk it would be written back all the time.
    return { command, environment: { TMPDIR: "/dev/shm" } };
  },
};
