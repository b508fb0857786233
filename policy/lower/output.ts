// The lowered policy as files, for people, for reviews and for other tools: `clawsec policy compile --out DIR`.

import { createHash } from "node:crypto";
import type { Artefacts } from "../compile.js";

/** Version of this set of files; grows when one is renamed or means something else. */
const FORMAT = 1;

function pretty(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** JSON bytes made readable; "" for none. */
function readable(bytes: Uint8Array): string {
  return bytes.length === 0 ? "" : pretty(JSON.parse(Buffer.from(bytes).toString()));
}

/**
 * File names and contents, the same bytes for the same artefacts; manifest.json last, with the SHA-256 of each other
 * one. A layer that the policy does without has no file.
 */
export function artefactFiles(artefacts: Artefacts): ReadonlyMap<string, string> {
  const { tables } = artefacts;
  const contents: readonly (readonly [string, string])[] = [
    ["oci.json", readable(artefacts.ociConfig)],
    [
      "rootfs.json",
      pretty(
        artefacts.rootfs.map(({ path, kind }) => {
          switch (kind?.$case) {
            case "symlink":
              return { path, symlink: kind.value };
            case "file":
              return { path, file: Buffer.from(kind.value).toString() };
            default:
              return { path, directory: true };
          }
        }),
      ),
    ],
    ["seccomp.json", readable(artefacts.seccomp)],
    [
      "landlock.json",
      artefacts.landlock === undefined
        ? ""
        : pretty({
            base: artefacts.landlock,
            entries: Object.fromEntries(
              artefacts.subjects.flatMap((s) =>
                s.entryLandlock === undefined ? [] : [[s.name, s.entryLandlock]],
              ),
            ),
          }),
    ],
    ["apparmor.profile", artefacts.apparmor?.text ?? ""],
    ["nftables.json", readable(artefacts.nftables)],
    [
      "bpf.json",
      pretty({
        subjects: artefacts.subjects.map(({ name, loopbackAny, loopbackPorts }) => ({
          name,
          loopbackAny,
          loopbackPorts,
        })),
      }),
    ],
    ["gate.json", pretty(tables?.network ?? {})],
    ["exec.json", pretty({ ...(tables?.exec ?? { rows: [] }), facts: tables?.facts ?? { sha256: false } })],
    ["file-guards.json", pretty(tables?.fileGuards ?? [])],
  ];
  const files = new Map(contents.filter(([, text]) => text !== ""));
  const sums = [...files].map(([name, text]) => [name, createHash("sha256").update(text).digest("hex")]);
  files.set(
    "manifest.json",
    pretty({
      format: FORMAT,
      apiVersion: "clawsec/v1",
      policyHash: tables?.policyHash ?? "",
      versions: {
        oci: (JSON.parse(artefacts.ociConfig.toString()) as { ociVersion: string }).ociVersion,
        landlockAbi: artefacts.landlock?.abi ?? 0,
      },
      sha256: Object.fromEntries(sums),
    }),
  );
  return files;
}
