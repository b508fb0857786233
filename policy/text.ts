// What a policy's text must not have: characters that a reader does not see, or sees elsewhere than they are, and what
// changes how YAML is read.

/**
 * C0 and C1 controls but the tab and the line break, DEL, and the bidirectional and zero-width characters that reorder or
 * hide text: what diagnostics and `policy show` draw as a dot.
 */
const HIDING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

/** True for a text with control characters, or with characters that reorder or hide others. */
export function hiding(text: string): boolean {
  return HIDING.test(text);
}

/**
 * The first line before the document that changes how it is read: `%YAML`, `%TAG` and the like. Only the version that is
 * read can be asked for. Offsets in UTF-16 units; undefined when there is none.
 */
export function wrongDirective(text: string): { readonly start: number; readonly end: number } | undefined {
  let start = text.startsWith("\ufeff") ? 1 : 0;
  while (start < text.length) {
    const stop = text.indexOf("\n", start);
    const end = stop < 0 ? text.length : stop;
    const line = text.slice(start, end).trimEnd();
    if (line.startsWith("%")) {
      if (!/^%YAML[ \t]+1\.2(?:[ \t]+#.*)?$/.test(line)) return { start, end: start + line.length };
    } else if (line !== "" && !/^\s*#/.test(line)) return undefined;
    start = end + 1;
  }
  return undefined;
}
