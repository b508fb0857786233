// docs/recipes.md: what policy/recipes has, in words and as text. `node dist/test/docs/recipes.js` writes it.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";

/** One file of policy/recipes. */
export interface Recipe {
  /** Its file name without `.yaml`. */
  readonly name: string;
  readonly title: string;
  readonly what: string;
  readonly when: string;
  readonly notStopped: string;
  /** The policy without the comment at its head. */
  readonly text: string;
}

/** Where the recipes are, and the page about them. */
export const RECIPES = join(packageRoot(), "policy/recipes");
export const PAGE = join(packageRoot(), "docs/recipes.md");

/** All recipes, sorted by name. Throws a sentence when the head of one is not as the page needs it. */
export function recipes(): Recipe[] {
  return readdirSync(RECIPES)
    .filter((name) => name.endsWith(".yaml") && !name.endsWith(".test.yaml"))
    .sort()
    .map((file) => readRecipe(file.slice(0, -".yaml".length), readFileSync(join(RECIPES, file), "utf8")));
}

/** The head: a line for editors, a title, and three sentences or more, each begun by its word. */
function readRecipe(name: string, source: string): Recipe {
  const lines = source.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("#"));
  const head = lines.slice(1, end).map((line) => line.replace(/^# ?/, ""));
  const part = (word: string): string => {
    const first = head.findIndex((line) => line.startsWith(`${word}: `));
    if (first < 0) throw new Error(`policy/recipes/${name}.yaml does not say "# ${word}: ..." at its head.`);
    const more = head.slice(first + 1).findIndex((line) => !line.startsWith("  "));
    const last = more < 0 ? head.length : first + 1 + more;
    const text = head.slice(first, last).map((line) => line.trim());
    return sentence(text.join(" ").slice(word.length + 2));
  };
  return {
    name,
    title: head[0] ?? "",
    what: part("What"),
    when: part("When"),
    notStopped: part("Not stopped"),
    text: lines.slice(end).join("\n"),
  };
}

const sentence = (text: string) => text.slice(0, 1).toUpperCase() + text.slice(1);

const HEAD = `# Recipes

Policies for what people ask for, each a file in \`policy/recipes\` with its tests beside it (\`NAME.test.yaml\`). Copy one, change it, and run
\`clawsec policy check\` and \`clawsec policy test\` on your copy. The [reference](policy.md) says what each key means.

Most of them extend \`builtin:default\` (any command in one folder) or \`builtin:openclaw\` (the gateway and its tools), and hold what they add. Three things to
know when you put your own rules on a base:

- **Yours come before the base's**, but for the locked ones. A permission of yours for a program skips the base's denials for it, so a recipe that permits a
  program repeats the base's \`loader-variables\` above the permission. Restrictions have no such trap.
- **A rule with the id of one of the base's replaces it.** So \`ask\`, \`git-push\` or \`loader-variables\` are changed, and not added.
- **With \`builtin:openclaw\`, name the subject** (\`subject: tool\`): a rule without one is about the gateway, too, which starts nothing that a person should be asked about.

To combine recipes, extend them: \`extends: [./office-hours.yaml, ./downloads-held.yaml]\`. The rules of the last in the list come first, and where two have a rule of the same
id, the last one's counts: \`clawsec policy show FILE\` prints what comes out.

This page is written by \`node dist/test/docs/recipes.js\`; a test compares it with the files.
`;

/** The text of docs/recipes.md. */
export function page(): string {
  const all = recipes();
  const list = all.map(({ name, title }) => `- [${title}](#${anchor(title)}) (\`${name}\`)`);
  const sections = all.map(
    ({ name, title, what, when, notStopped, text }) => `
## ${title}

${what}

**Use it when** ${lower(when)}

**It does not stop** ${lower(notStopped)}

\`policy/recipes/${name}.yaml\`:

\`\`\`yaml
${text.trimEnd()}
\`\`\`
`,
  );
  return `${HEAD}\n${list.join("\n")}\n${sections.join("")}`;
}

const lower = (text: string) => text.slice(0, 1).toLowerCase() + text.slice(1);

/** As GitHub and most others name a heading. */
function anchor(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^a-z0-9 -]/g, "")
    .replaceAll(" ", "-");
}

if (import.meta.main) writeFileSync(PAGE, page());
