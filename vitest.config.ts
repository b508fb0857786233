import { defineConfig } from "vitest/config";

/**
 * Three projects, because they may not be mixed: unit tests touch nothing outside their process and a temporary folder and
 * run side by side; end-to-end tests start loaders and sandboxes, so one file runs after the other; so it is with tests in
 * virtual machines, which may run beside the unit tests.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: [
            "{agent,policy,tui}/**/*.test.{ts,tsx}",
            "test/{tools,support,demo,bench,conformance,docs,fuzz,escape}/**/*.test.ts",
          ],
          exclude: ["**/node_modules/**", "**/*.e2e.test.ts"],
          testTimeout: 10_000,
          // For the threads that the supervisor starts: they are run from their sources, too.
          execArgv: [
            "--experimental-transform-types",
            "--disable-warning=ExperimentalWarning",
            `--import=${new URL("test/tools/typescript.mjs", import.meta.url)}`,
          ],
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/{e2e,openclaw}/**/*.test.ts", "test/{conformance,escape}/*.e2e.test.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: "vm",
          include: ["test/vm/**/*.test.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
