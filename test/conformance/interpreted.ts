// Execs of interpreters with what they are told to run by their arguments.

import { basename } from "node:path/posix";
import { ExecCode, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { DriverCall, MeantExec } from "./attempt.js";
import { someWords, type Told, type Word } from "./interpreters.js";
import { type Leads, type Operand, someOperand, someStanding } from "./operands.js";
import { INTERPRETERS, type Interpreter, LOADED_INTERPRETERS } from "./programs.js";
import type { Random } from "./random.js";
import { wayTo } from "./ways.js";
import type { World } from "./world.js";

/** An exec before it has an environment. */
export interface Interpreted extends Pick<MeantExec, "opened" | "image" | "reads" | "swapped" | "through"> {
  readonly call: Omit<DriverCall, "operation" | "argv">;
  readonly cwd: string;
  readonly argv: readonly string[];
  readonly executable: string;
  readonly loader: string;
  readonly kind: ExecutableKind;
  readonly code: ExecCode;
  readonly isUnknown: boolean;
  /** Those that it runs or loads, in this order. */
  readonly scripts: readonly string[];
  /** Variables that tell it what to read. */
  readonly variables: readonly string[];
}

/** What an image reads when it has put something else in place of its script (driver/interpreter.c). */
export const SWAPPED = "swapped\n";
export const SWAPS = ["SWAPS=rewrite", "SWAPS=rename"] as const;

type FileLead = Extract<Leads, { to: "file" }>;
const isFile = (leads: Leads): leads is FileLead => leads.to === "file";

export function someInterpreted(random: Random, { dynamicLoader }: World, id: string): Interpreted {
  const isLoaded = random.chance(6);
  const program = random.pick(isLoaded ? LOADED_INTERPRETERS : INTERPRETERS);
  const way = wayTo(random, isLoaded ? { path: dynamicLoader, links: [] } : program);
  const { cwd } = way;
  const told = someWords(random, program.grammar);
  const operands: readonly [Operand, Operand] = [
    someOperand(random, program.grammar, cwd, id),
    someStanding(random, program.grammar, cwd),
  ];
  const heads = headOf(random, program, isLoaded);
  const argv = [...heads, ...told.words.map((word) => written(word, operands))];
  const given = told.files.map((which) => operands[which]);
  const found = given.filter(({ leads }) => isFile(leads));
  const leads = found.map(({ leads }) => leads).filter(isFile);
  const reads = readsOf(program, isLoaded, told, operands);
  const places = reads.map(({ word }) => heads.length + word - (isLoaded ? 1 : 0));
  // Where it is one that opens nothing else, and the name can be written.
  const [first] = reads;
  const swaps = first?.operand.isOwn === true && random.chance(60);
  return {
    call: { ...way.call, ...(usesOwn(told) ? operands[0].call : {}) },
    cwd,
    argv,
    executable: program.path,
    loader: isLoaded ? dynamicLoader : "",
    kind: leads.find(({ kind }) => kind !== ExecutableKind.FILE)?.kind ?? ExecutableKind.FILE,
    code: codeOf(told, given),
    isUnknown: isOpen(told, given),
    scripts: leads.map(({ path }) => path),
    opened: [isLoaded ? dynamicLoader : program.path],
    image: isLoaded ? dynamicLoader : program.path,
    reads: reads.map(({ text }) => text),
    swapped: swaps ? SWAPPED : undefined,
    through: [
      ...leads.map(({ path, kind }) => (kind === ExecutableKind.FILE ? path : "memory")),
      ...found.map(({ through }) => through),
    ],
    variables: [
      ...(places.length > 0 ? [`READS=${places.join(",")}`] : []),
      ...(swaps ? [random.pick(SWAPS)] : []),
    ],
  };
}

// The arguments before those that it is told.
function headOf(random: Random, { path, grammar }: Interpreter, isLoaded: boolean): readonly string[] {
  const name = basename(path);
  if (isLoaded) return ["ld.so", path];
  if (grammar === "busybox")
    return random.pick([["ash"], ["/bin/sh"], ["busybox", "sh"], ["busybox", "ash"]]);
  return [random.pick([name, name, "sh", "python3", "-sh", "", "x"])];
}

function written(word: Word, operands: readonly [Operand, Operand]): string {
  return typeof word === "string" ? word : `${word.after ?? ""}${operands[word.file].name}`;
}

function usesOwn({ words }: Told): boolean {
  return words.some((word) => typeof word !== "string" && word.file === 0);
}

// What is no file of its own is read as it comes.
function codeOf({ code, files }: Told, given: readonly Operand[]): ExecCode {
  return files.length > 0 && given.some(isStream) ? ExecCode.STREAM : code;
}

const isStream = ({ leads }: Operand): boolean => leads.to === "stream";

/** Not certain, nowhere, or a stream besides a file. */
function isOpen({ isUnknown }: Told, given: readonly Operand[]): boolean {
  const isBoth = given.some(isStream) && !given.every(isStream);
  return isUnknown || isBoth || given.some(({ leads }) => leads.to === "nothing");
}

interface Read {
  /** Its place among the words. */
  readonly word: number;
  readonly operand: Operand;
  /** `undefined`: it cannot be read. */
  readonly text: string | undefined;
}

// What it can be told to read: the very file that is named. What is found beside that name is found by nobody here.
function readsOf(
  { grammar }: Interpreter,
  isLoaded: boolean,
  { words, files, isUnknown }: Told,
  operands: readonly [Operand, Operand],
): readonly Read[] {
  if (isUnknown) return [];
  return files.flatMap((file) => {
    const operand = operands[file];
    const { leads } = operand;
    if (!isFile(leads) || leads.path.startsWith("/opt/t/s/pkg/") || leads.path === "/opt/t/s/bare.js")
      return [];
    const word = words.findIndex((one) => typeof one !== "string" && one.file === file);
    // Node asks for the canonical name first, and there is none.
    const isNameless = grammar === "node" && !isLoaded && leads.kind !== ExecutableKind.FILE;
    return [{ word, operand, text: isNameless ? undefined : leads.text }];
  });
}
