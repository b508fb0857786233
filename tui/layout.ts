import stringWidth from "string-width";

/** Rows and columns of each part of the screen. */
export interface Layout {
  readonly columns: number;
  readonly rows: number;
  /** Holds and details beside each other rather than one above the other. */
  readonly wide: boolean;
  /** Lines of each list, without its title. */
  readonly holds: number;
  readonly details: number;
  readonly events: number;
  readonly holdsWidth: number;
  readonly detailsWidth: number;
}

/** In less than this, a person would not see what they answer. */
export const smallest = { columns: 40, rows: 10 };

/** Whether a terminal is smaller than that. */
export function isTooSmall(columns: number, rows: number): boolean {
  return columns < smallest.columns || rows < smallest.rows;
}

const wideFrom = 120;
// The status line above, and the line for keys and prompts below.
const otherRows = 2;

/** Divides a terminal that is not too small; what does not fit is cut, never wrapped. */
export function layout(columns: number, terminalRows: number): Layout {
  // One row stays free: Ink clears the whole terminal for each frame that fills it, which flickers.
  const rows = terminalRows - 1;
  const body = rows - otherRows;
  if (columns >= wideFrom) {
    const top = Math.max(3, Math.floor(body * 0.6));
    const holdsWidth = Math.floor(columns * 0.45);
    return {
      columns,
      rows,
      wide: true,
      holds: top - 1,
      details: top - 1,
      events: Math.max(0, body - top - 1),
      holdsWidth,
      detailsWidth: columns - holdsWidth - 2,
    };
  }
  const lists = body - 3;
  const holds = Math.max(1, Math.floor(lists * 0.2));
  const details = Math.max(1, Math.floor(lists * 0.56));
  return {
    columns,
    rows,
    wide: false,
    holds,
    details,
    events: Math.max(0, lists - holds - details),
    holdsWidth: columns,
    detailsWidth: columns,
  };
}

/** The part of `count` lines, `size` of them at a time, that shows line `focus`. */
export function windowStart(count: number, size: number, focus: number): number {
  return Math.max(0, Math.min(focus - Math.floor(size / 2), count - size));
}

/**
 * Cuts text into lines of at most `width` columns. The text has no control characters; some characters take
 * two columns.
 */
export function fold(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  let used = 0;
  for (const character of text) {
    const columns = stringWidth(character);
    if (used + columns > width && line !== "") {
      lines.push(line);
      line = "";
      used = 0;
    }
    line += character;
    used += columns;
  }
  return [...lines, line];
}
