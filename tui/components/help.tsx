import { Box, Text } from "ink";
import { help } from "../keymap.js";
import { Title } from "./title.js";

/** The page of keys. */
export function Help({ lines, width }: { lines: number; width: number }) {
  return (
    <Box flexDirection="column" width={width} height={lines + 1}>
      <Title text="Keys" width={width} />
      {help.slice(0, lines).map(([keys, meaning]) => (
        <Text key={keys} wrap="truncate-end">
          {`  ${keys.padEnd(18)}${meaning}`}
        </Text>
      ))}
    </Box>
  );
}
