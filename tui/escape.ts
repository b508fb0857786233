/**
 * The one place that makes text from a sandbox safe to draw.
 *
 * The agent chooses argv, paths, host names, thread names and more. Drawn as it is, such text could move the
 * cursor, recolour the screen, turn the reading direction round, or hide a part of itself, so that a person
 * approves something else than what they see. Whatever is not plainly visible is drawn as its code.
 */

// Controls (C0, C1, DEL), format characters (bidi overrides, zero-width), everything that renderers may leave
// out, blanks that are not the space, combining marks (they pile up on their neighbours), private and
// unassigned characters, and halves of surrogate pairs. U+2800 is a blank that counts as a symbol.
const invisible = /[\p{C}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\p{M}\u2800]|(?! )\p{Zs}/gu;

const clusters = new Intl.Segmenter("en", { granularity: "grapheme" });

/** Text with everything invisible or moving drawn as a code: `\n`, `\x1b`, `\u202e`, `\u{e0041}`. */
export function visible(text: string): string {
  return alone(text.replaceAll(invisible, code));
}

// Letters and symbols, too, can join their neighbours to one cluster (UAX 29: vowels of Thai and Lao, jamo, skin tones, flags).
// Whoever measures text counts a cluster as one character, and terminals draw each by itself, so that a line would be
// longer than its measure, wrap, and push others off the screen.
function alone(text: string): string {
  if (/^[ -~]*$/.test(text)) return text;
  const parts = Array.from(clusters.segment(text), ({ segment }) => segment);
  return parts.map((part) => ([...part].length === 1 ? part : part.replaceAll(/[^ -~]/gu, code))).join("");
}

/** As `visible`, and all beyond ASCII as codes: for host names, where look-alike letters are an attack. */
export function visibleHost(text: string): string {
  return visible(text).replaceAll(/[^ -~]/gu, code);
}

/**
 * One argument as a shell-like word. Plain words stand as they are; any other is in double quotes with `\` and
 * `"` escaped, so that no two different argument lists look the same.
 */
export function visibleWord(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return `"${visible(word.replaceAll(/["\\]/g, "\\$&"))}"`;
}

/** An argument list on one line. */
export function visibleArgv(argv: readonly string[]): string {
  return argv.map(visibleWord).join(" ");
}

function code(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\r") return "\\r";
  if (character === "\t") return "\\t";
  const point = character.codePointAt(0) ?? 0;
  if (point <= 0xff) return `\\x${point.toString(16).padStart(2, "0")}`;
  if (point <= 0xffff) return `\\u${point.toString(16).padStart(4, "0")}`;
  return `\\u{${point.toString(16)}}`;
}
