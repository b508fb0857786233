import { Text } from "ink";

/** The line above a list, drawn to the full width: "── Holds (2) ─────". */
export function Title({ text, width }: { text: string; width: number }) {
  const start = `── ${text} `;
  return (
    <Text dimColor wrap="truncate-end">
      {start + "─".repeat(Math.max(0, width - start.length))}
    </Text>
  );
}
