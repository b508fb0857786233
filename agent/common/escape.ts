/**
 * The one place where text that came from a sandbox becomes safe to print.
 *
 * A process chooses its own argv, paths and host names, so they can hold terminal escape sequences (which move the
 * cursor, retitle the window or answer for the keyboard), line breaks (which forge log lines) and bidirectional
 * controls (which reorder what a person reads; Unicode TR 36, CVE-2021-42574). Each such character is shown as an
 * escape and never sent to a terminal.
 */

/**
 * C0 and C1 controls and DEL, soft hyphen, bidirectional and zero-width controls, line and paragraph separators,
 * interlinear annotations, byte order mark, variation selectors, tags, and lone surrogates.
 */
const UNSAFE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}\p{Cs}]|\u034f|[\u17b4\u17b5]|[\u180b-\u180d\u180f]|[\ufe00-\ufe0f]/gu;

/**
 * Text with every unsafe character written as `\n`, `\t`, `\r`, `\xHH` or `\u{H}`; a backslash becomes `\\`, so that
 * the result is unambiguous. One line, safe to print.
 */
export function escapeText(text: string): string {
  return text.replaceAll("\\", "\\\\").replace(UNSAFE, visible);
}

/** As {@link escape}, cut to `limit` characters (not UTF-16 units) with an ellipsis. */
export function escapeTo(text: string, limit: number): string {
  // Cut before escaping too: a hostile argv of megabytes must not be escaped in full to show eighty characters.
  const escaped = escapeText(text.length > limit * 4 ? text.slice(0, limit * 4) : text);
  // There are no more characters than UTF-16 units, and those need no counting.
  if (escaped.length <= limit && text.length <= limit * 4) return escaped;
  const characters = [...escaped];
  if (characters.length <= limit && text.length <= limit * 4) return escaped;
  return `${characters.slice(0, Math.max(0, limit - 1)).join("")}…`;
}

/** A value as JSON on one line in which the unsafe characters are `\uXXXX`: still the same value when parsed. */
export function escapedJson(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, null, indent) ?? "null";
  // JSON.stringify has escaped C0 within strings; a line feed outside of strings is its own layout.
  return text.replace(UNSAFE, (character) => (character === "\n" ? character : unicodeEscape(character)));
}

/** One word as in a shell-like line, cut to `limit` characters: in quotes unless no shell would split it. */
export function escapeWord(word: string, limit: number): string {
  const safe = escapeTo(word, limit);
  return /^[\w@%+=:,./-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", "'\\''")}'`;
}

/**
 * An argv as a shell-like line of at most `limit` characters: words that need it are quoted, unsafe characters escaped.
 * A longer one ends with how much is not shown: what is behind it may matter more than what is shown.
 */
export function escapeArgv(argv: readonly string[], limit = 400): string {
  let length = 0;
  const words: string[] = [];
  for (const word of argv) {
    if (length > limit) break;
    // One that is cut makes the line too long by itself.
    const safe = escapeWord(word, limit + 1);
    words.push(safe);
    length += safe.length + 1;
  }
  const line = words.join(" ");
  if (line.length <= limit && words.length === argv.length) return line;
  const characters = [...line];
  if (characters.length <= limit && words.length === argv.length) return line;
  const written = argv.reduce((sum, word) => sum + word.length + 1, 0);
  return `${characters.slice(0, limit).join("")}… (about ${Math.max(1, written - limit)} more characters)`;
}

function visible(character: string): string {
  switch (character) {
    case "\n":
      return "\\n";
    case "\r":
      return "\\r";
    case "\t":
      return "\\t";
    default: {
      const code = character.codePointAt(0) ?? 0;
      return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
    }
  }
}

function unicodeEscape(character: string): string {
  let escaped = "";
  for (let index = 0; index < character.length; index += 1) {
    escaped += `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }
  return escaped;
}
