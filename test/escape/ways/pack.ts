// Ways round what the pack says of programs: the rule is about what is done, and a program can be told so in many ways.

import { type Family, sh, shown, type Way } from "../way.js";

const RULE = "exec rule of the pack: held, and nobody approves";

/** A repository with a commit and a remote one; the effect is that the remote one has it. */
function push(id: string, tries: string, command: string): Way {
  const text = [
    "export GIT_CONFIG_GLOBAL=/dev/null HOME=$PWD",
    "git init -q --bare remote.git && git init -q -b main project && cd project",
    "git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m x",
    "git remote add origin ../remote.git",
    command,
    'git --git-dir=../remote.git for-each-ref | grep -q refs/heads && echo "effect $TOKEN"',
  ].join("\n");
  return sh(id, tries, RULE, shown, text, { timeoutMs: 8000 });
}

/** A folder with something in it; the effect is that it is gone. */
function remove(id: string, tries: string, command: string): Way {
  const text = `mkdir -p folder/below && touch folder/below/file\n${command}\n[ -e folder ] || echo "effect $TOKEN"`;
  return sh(id, tries, RULE, shown, text, { timeoutMs: 8000 });
}

const REF = "origin HEAD:main";

export const packFamily: Family = {
  name: "pack",
  ways: [
    push("push-plain", "git push", `git push -q ${REF}`),
    push("push-option", "git push behind options", `git -C . -c a.b=c push -q ${REF}`),
    push("push-alias", "git push by an alias", `git -c alias.harmless=push harmless -q ${REF}`),
    push("push-dashed", "git push by the program git-push", `"$(git --exec-path)/git-push" -q ${REF}`),
    push("push-argv0", "git push by the name in argv[0]", `(exec -a git-push git -q ${REF})`),
    push(
      "push-send-pack",
      "git send-pack, which push calls",
      "git send-pack ../remote.git HEAD:refs/heads/main",
    ),
    push(
      "push-send-pack-argv0",
      "git send-pack by the name in argv[0]",
      "(exec -a /x/git-send-pack git ../remote.git HEAD:refs/heads/main)",
    ),
    remove("remove-letters", "rm -fr", "rm -fr folder"),
    remove("remove-behind", "rm with its option behind the operand", "rm folder -R"),
    remove("remove-abbreviated", "rm with an abbreviated option", "rm --recurs folder"),
    remove("remove-argv0", "rm under another name", "(exec -a ls rm -dvr folder)"),
    remove("remove-by-env", "rm by env", "env X=1 nice rm -r folder"),
  ],
};
