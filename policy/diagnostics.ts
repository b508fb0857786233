// What is wrong with a policy, said where it is wrong.

export type Severity = "error" | "warning";

/** A place in a policy file. Lines and columns start at 1; `length` is in UTF-16 units and stays on its line. */
export interface Origin {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly length: number;
  /** The whole source line, for the caret. Untrusted text: escaped when it is drawn. */
  readonly sourceLine: string;
}

/** One finding: a sentence that says what was refused, and one that says what to do. */
export interface Diagnostic {
  readonly severity: Severity;
  /** Stable name of the kind of finding, e.g. "unknown-key", "missing-source". */
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  /** Rule id, e.g. "exec/git-push"; empty when it is not about a rule. */
  readonly rule: string;
  /** Layer that cannot do it, e.g. "landlock"; empty when it is not about a layer. */
  readonly layer: string;
  readonly origin: Origin;
}

/** Most findings that are drawn; more would scroll the first ones away. */
const MAX_FINDINGS = 50;
/** Longest sentence that is drawn. */
const MAX_SENTENCE = 600;
/** Longest part of a source line that is drawn. */
const MAX_DRAWN = 160;

/** Replaces what could move a terminal's cursor or hide text; every character stays one column wide. */
function drawable(text: string): string {
  // C0 and C1 controls, DEL, and the bidirectional and zero-width characters that reorder or hide text.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (c) =>
    c === "\t" ? " " : "\u00b7",
  );
}

function sentence(text: string): string {
  const drawn = drawable(text);
  return drawn.length > MAX_SENTENCE ? `${drawn.slice(0, MAX_SENTENCE)}...` : drawn;
}

/** One finding as text, without a newline at the end. */
export function renderDiagnostic(diagnostic: Diagnostic): string {
  const { origin } = diagnostic;
  const number = String(origin.line);
  const gutter = " ".repeat(number.length);
  // A long line is cut around the caret, so that the caret is always seen.
  const start = origin.column > MAX_DRAWN ? origin.column - 1 - MAX_DRAWN / 2 : 0;
  const source = drawable(origin.sourceLine)
    .slice(start, start + MAX_DRAWN)
    .trimEnd();
  const indent = Math.max(0, origin.column - 1 - start);
  const caret = "^".repeat(Math.max(1, Math.min(origin.length, MAX_DRAWN - indent)));
  const lines = [
    `${drawable(origin.file)}:${origin.line}:${origin.column}: ${diagnostic.severity}: ${sentence(diagnostic.message)}`,
    ` ${number} | ${source}`,
    ` ${gutter} | ${" ".repeat(indent)}${caret}`,
  ];
  if (diagnostic.remedy !== "") lines.push(` ${gutter} = ${sentence(diagnostic.remedy)}`);
  return lines.join("\n");
}

/** All findings as text, in the order of the file, with an empty line between them. */
export function renderDiagnostics(diagnostics: readonly Diagnostic[]): string {
  const texts = sortDiagnostics(diagnostics).slice(0, MAX_FINDINGS).map(renderDiagnostic);
  const rest = diagnostics.length - texts.length;
  if (rest > 0) texts.push(`and ${rest} more`);
  return texts.join("\n\n");
}

/**
 * Findings in the order in which a reader of the files meets them. Files in the order of `files`, then in that of the
 * findings.
 */
export function sortDiagnostics(
  diagnostics: readonly Diagnostic[],
  files: readonly string[] = [],
): Diagnostic[] {
  const order = new Map<string, number>();
  for (const file of [...files, ...diagnostics.map((d) => d.origin.file)])
    if (!order.has(file)) order.set(file, order.size);
  const rank = (d: Diagnostic) => order.get(d.origin.file) ?? 0;
  return [...diagnostics].sort(
    (a, b) => rank(a) - rank(b) || a.origin.line - b.origin.line || a.origin.column - b.origin.column,
  );
}
