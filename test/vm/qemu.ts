// Debian's stock kernels under QEMU: they have BPF-LSM and AppArmor in their list of security modules.

import { accessSync, constants, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Monitor } from "./monitor.ts";

const cache = join(process.env.CLAWSEC_CACHE ?? "/var/cache/clawsec", "vm-qemu");

/** The machine with Debian 12's kernel of this version. It has one processor, which is emulated where there is no KVM. */
export function qemu(version: "6.1" | "6.12"): Monitor {
  const at = (name: string) => join(cache, version, name);
  return {
    cache,
    // Emulated, while the host builds: five times what it takes on a quiet host.
    timeoutMs: 90_000,
    // Linux 6.12 patches its own code early in the boot (text_poke_early), and was seen to crash there in one boot of ten
    // under emulation.
    bootAttempts: 3,
    whyMissing() {
      if (!existsSync(join(cache, ".complete"))) return `${cache} is not there; run test/vm/install-qemu.sh`;
      if (existsSync(at("vmlinux"))) return undefined;
      const reason = join(cache, `no-${version}`);
      return existsSync(reason) ? readFileSync(reason, "utf8").trim() : `${at("vmlinux")} is not there`;
    },
    start(control, kernelArguments) {
      writeFileSync(join(control, "settings"), `cache=${cache} version=${version}\n`);
      const share = (path: string, tag: string, options: string) => [
        "-virtfs",
        `local,path=${path},mount_tag=${tag},security_model=none,${options}`,
      ];
      const command = [
        ...[join(cache, "qemu"), "-L", join(cache, "share"), "-M", "q35"],
        ...(hasVirtualization() ? ["-accel", "kvm"] : ["-accel", "tcg,thread=multi"]),
        ...["-cpu", "max", "-smp", "1", "-m", "1024"],
        ...["-nodefaults", "-display", "none", "-no-reboot", "-serial", `file:${join(control, "console")}`],
        ...["-kernel", at("vmlinux"), "-initrd", at("initrd")],
        "-append",
        [
          ...["console=ttyS0", "quiet", "panic=-1", "oops=panic", "mitigations=off", "cryptomgr.notests"],
          ...kernelArguments,
        ].join(" "),
        // The host's file systems may have equal inode numbers; remap tells them apart.
        ...share("/", "host", "readonly=on,multidevs=remap"),
        ...share(control, "control", "readonly=off"),
      ];
      return {
        command,
        environment: { LD_LIBRARY_PATH: join(cache, "lib"), QEMU_MODULE_DIR: join(cache, "lib") },
      };
    },
  };
}

/** /dev/kvm alone says little: where the processor does not virtualize it opens, and a machine then hangs. */
function hasVirtualization(): boolean {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return false;
  }
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
}
