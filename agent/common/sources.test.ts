/** Policy texts come only from regular files of a bounded size, and a stored bundle answers as the files did. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundleBase, fileBase, MAX_POLICY_BYTES, packNames, readSource, sourceName } from "./sources.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-sources-"));
  mkdirSync(join(folder, "sub"));
  writeFileSync(join(folder, "main.yaml"), "main");
  writeFileSync(join(folder, "team.yaml"), "team");
  writeFileSync(join(folder, "sub", "team.yaml"), "other team");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("fileBase", () => {
  test("a relative reference is relative to the folder of the file that has it, an absolute one is not", () => {
    const main = join(folder, "main.yaml");
    expect(fileBase("./team.yaml", main)).toEqual({ file: join(folder, "team.yaml"), text: "team" });
    expect(fileBase("../team.yaml", join(folder, "sub", "x.yaml"))).toMatchObject({ text: "team" });
    expect(fileBase(join(folder, "sub/team.yaml"), main)).toMatchObject({ text: "other team" });
  });

  test("builtin:NAME is a pack of the installation under that name, and an unknown one says which there are", () => {
    expect(packNames()).toContain("openclaw");
    expect(fileBase("builtin:openclaw", "/anywhere.yaml")).toEqual({
      file: "builtin:openclaw",
      text: expect.stringContaining("apiVersion: clawsec/v1"),
    });
    for (const name of ["nothing", "../packs/openclaw", "", "openclaw.yaml"])
      expect(fileBase(`builtin:${name}`, "/anywhere.yaml")).toEqual({
        error: expect.stringMatching(/^there is no builtin policy ".*"; there are: .*openclaw/),
      });
  });

  test("a pack that extends its neighbour means the pack", () => {
    expect(sourceName("./default.yaml", "builtin:openclaw")).toBe("builtin:default");
    expect(fileBase("./default.yaml", "builtin:openclaw")).toMatchObject({ file: "builtin:default" });
  });
});

describe("readSource", () => {
  test("a regular file is read, also through a symbolic link", () => {
    symlinkSync("team.yaml", join(folder, "link.yaml"));
    expect(readSource(join(folder, "link.yaml"))).toMatchObject({ text: "team" });
  });

  test("a FIFO is refused rather than waited for, as are a folder, a device, and a file that is not there", () => {
    execFileSync("mkfifo", [join(folder, "fifo")]);
    expect(readSource(join(folder, "fifo"))).toEqual({
      error: expect.stringContaining("not a regular file"),
    });
    expect(readSource(folder)).toEqual({ error: expect.stringContaining("not a regular file") });
    expect(readSource("/dev/zero")).toEqual({ error: expect.stringContaining("not a regular file") });
    expect(readSource(join(folder, "none.yaml"))).toEqual({
      error: expect.stringMatching(/cannot be read: .+/),
    });
  });

  test("4 MiB are read, one byte more is refused", () => {
    const path = join(folder, "large.yaml");
    writeFileSync(path, "");
    truncateSync(path, MAX_POLICY_BYTES);
    expect(readSource(path)).toHaveProperty("text");
    truncateSync(path, MAX_POLICY_BYTES + 1);
    expect(readSource(path)).toEqual({ error: expect.stringContaining("larger than") });
  });

  test("bytes that are not UTF-8 are refused, and those that are stay as they are", () => {
    const path = join(folder, "bytes.yaml");
    writeFileSync(path, Buffer.from([0x61, 0xff]));
    expect(readSource(path)).toEqual({ error: expect.stringContaining("not UTF-8") });
    writeFileSync(path, "\ufeffä");
    expect(readSource(path)).toEqual({ file: path, text: "\ufeffä" });
  });
});

describe("bundleBase", () => {
  test("the stored texts answer as the files did, by reference and by who refers", () => {
    const base = bundleBase([
      { file: join(folder, "team.yaml"), text: "team as it was" },
      { file: join(folder, "sub", "team.yaml"), text: "other team as it was" },
      { file: "builtin:openclaw", text: "pack as it was" },
    ]);
    expect(base("./team.yaml", join(folder, "main.yaml"))).toMatchObject({ text: "team as it was" });
    expect(base("./team.yaml", join(folder, "sub", "main.yaml"))).toMatchObject({
      text: "other team as it was",
    });
    expect(base("builtin:openclaw", "/x.yaml")).toEqual({ file: "builtin:openclaw", text: "pack as it was" });
  });

  test("what is not stored is an error, and never read from the disk", () => {
    expect(bundleBase([])("./team.yaml", join(folder, "main.yaml"))).toEqual({
      error: expect.stringContaining("not among the stored texts"),
    });
  });
});
