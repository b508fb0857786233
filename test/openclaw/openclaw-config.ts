// Builds the openclaw.json that the demo and the end-to-end tests run with.
//
// No secret is in it: the gateway's token and the model's key are SecretRefs
// to files, which clawsec mounts read-only on a tmpfs. So the configuration
// may be root-owned and world-readable, which is what keeps an agent from
// rewriting it.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

export interface OpenClawConfigOptions {
  readonly port?: number;
  /**
   * Base URL of the scripted model. A host name is fine: OpenClaw's SSRF guard
   * trusts the configured origin, and for its host it also accepts answers in
   * 198.18.0.0/15, the range in which clawsec's gate answers DNS.
   */
  readonly modelUrl?: string;
  readonly gatewayTokenFile?: string;
  readonly modelKeyFile?: string;
  /** Without one, OpenClaw uses ~/.openclaw/workspace. */
  readonly workspace?: string;
  /** OpenClaw's own exec policy. `full` because clawsec decides, below OpenClaw. */
  readonly execMode?: "deny" | "allowlist" | "ask" | "auto" | "full";
  /** Ids of the bundled plugins to load. */
  readonly plugins?: readonly string[];
}

export const DEFAULTS = {
  port: 18789,
  modelUrl: "http://model.test:18999/v1",
  gatewayTokenFile: "/run/secrets/gateway-token",
  modelKeyFile: "/run/secrets/model-key",
} as const;

export function openClawConfig(options: OpenClawConfigOptions = {}): Record<string, unknown> {
  const port = options.port ?? DEFAULTS.port;
  return {
    gateway: {
      mode: "local",
      port,
      // Said explicitly: in what OpenClaw takes for a container, unset means 0.0.0.0.
      bind: "loopback",
      auth: { mode: "token", token: fileRef("gateway_token") },
      // The web terminal is a shell on the gateway's side of the fence.
      terminal: { enabled: false },
      // The file is read-only; a reload would only ever be somebody else's idea.
      reload: { mode: "off" },
    },
    secrets: {
      providers: {
        gateway_token: fileProvider(options.gatewayTokenFile ?? DEFAULTS.gatewayTokenFile),
        model_key: fileProvider(options.modelKeyFile ?? DEFAULTS.modelKeyFile),
      },
    },
    agents: {
      defaults: {
        model: { primary: "scripted/scripted" },
        ...(options.workspace === undefined ? {} : { workspace: options.workspace }),
      },
    },
    models: {
      catalogRefresh: { enabled: false },
      providers: {
        scripted: {
          baseUrl: options.modelUrl ?? DEFAULTS.modelUrl,
          apiKey: fileRef("model_key"),
          api: "openai-completions",
          models: [
            {
              id: "scripted",
              name: "Scripted",
              reasoning: false,
              input: ["text"],
              cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
              contextWindow: 131072,
              maxTokens: 4096,
            },
          ],
        },
      },
    },
    tools: {
      exec: { host: "gateway", mode: options.execMode ?? "full" },
      // OpenClaw's web_fetch refuses 198.18.0.0/15 unless told that a trusted
      // resolver answers with such addresses, which is what the gate does. Its
      // guard against the other private ranges stays.
      web: { fetch: { ssrfPolicy: { allowRfc2544BenchmarkRange: true } } },
    },
    // An allow list of plugins is also what keeps the other bundled ones from
    // being loaded: 1 instead of 14, and about two seconds less to start.
    plugins: { allow: [...(options.plugins ?? ["memory-core"])] },
    update: { checkOnStart: false },
    discovery: { mdns: { mode: "off" } },
  };
}

export interface GatewayEnvironmentOptions {
  readonly home: string;
  /** clawsec's tool entry. Its file name must be `bash`, or OpenClaw leaves out --noprofile --norc. */
  readonly shell?: string;
  readonly path: string;
}

/**
 * The whole environment of the gateway: nothing else is to be inherited, for
 * every command the agent runs sees it too.
 */
export function gatewayEnvironment(options: GatewayEnvironmentOptions): Record<string, string> {
  return {
    HOME: options.home,
    USER: "agent",
    LANG: "C.UTF-8",
    PATH: options.path,
    SHELL: options.shell ?? "/.clawsec/bash",
    // Without it each command is started through `/bin/sh -c 'echo 1000 >
    // /proc/self/oom_score_adj ...; exec "$0" "$@"'`, and the exec gate would
    // have to let the gateway's side start /bin/sh.
    OPENCLAW_CHILD_OOM_SCORE_ADJ: "0",
    // The snapshot is a file that is sourced before every command, written by
    // the gateway from an interactive shell: a way for one command to reach into
    // the next, and two more execs.
    OPENCLAW_EXEC_SHELL_SNAPSHOT: "0",
    // The configuration is read-only; this makes OpenClaw say so instead of failing.
    OPENCLAW_CONFIG_READONLY: "1",
    OPENCLAW_OFFLINE: "1",
    OPENCLAW_NO_AUTO_UPDATE: "1",
    OPENCLAW_NO_RESPAWN: "1",
    OPENCLAW_DISABLE_BONJOUR: "1",
  };
}

function fileRef(provider: string) {
  return { source: "file", provider, id: "value" };
}

function fileProvider(path: string) {
  return { source: "file", path, mode: "singleValue" };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: "string" },
      "model-url": { type: "string" },
      "gateway-token-file": { type: "string" },
      "model-key-file": { type: "string" },
      workspace: { type: "string" },
      out: { type: "string" },
    },
  });
  const config = openClawConfig({
    ...(values.port === undefined ? {} : { port: Number(values.port) }),
    ...(values["model-url"] === undefined ? {} : { modelUrl: values["model-url"] }),
    ...(values["gateway-token-file"] === undefined ? {} : { gatewayTokenFile: values["gateway-token-file"] }),
    ...(values["model-key-file"] === undefined ? {} : { modelKeyFile: values["model-key-file"] }),
    ...(values.workspace === undefined ? {} : { workspace: values.workspace }),
  });
  const text = `${JSON.stringify(config, null, 2)}\n`;
  if (values.out === undefined) process.stdout.write(text);
  else writeFileSync(values.out, text, { mode: 0o644 });
}

if (import.meta.main) await main();
