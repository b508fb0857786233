// Host names and host patterns, by whole labels: "*.x.com" is any name with one or more labels before x.com,
// never x.com itself and never evilx.com; "*" is any name. The egress gate reads its table the same way.

/** Longest host name (RFC 1035, as text without the last dot). */
const MAX_HOST = 253;

// As the gate reads names: underscores are not in the RFC's host names, yet real services have them.
const LABEL = /^[a-z0-9_-]{1,63}$/;

/** Lower case (ASCII only: the Kelvin sign is no "k"), without the root's dot at the end. */
export function normalizeHost(host: string): string {
  const lower = host.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
}

/** True for a normalized host name. */
export function isHostName(host: string): boolean {
  return host.length <= MAX_HOST && host.split(".").every((label) => LABEL.test(label));
}

/** Why a text is no host pattern; undefined when it is. The text must be normalized. */
export function hostPatternError(pattern: string): string | undefined {
  if (pattern === "*") return undefined;
  const name = pattern.startsWith("*.") ? pattern.slice(2) : pattern;
  if (name.includes("/")) return "it must be a host name without scheme or path";
  if (/^[0-9.]+$/.test(name) || name.includes(":")) return 'addresses go into "cidr", not "host"';
  if (name.includes("*")) return '"*" stands for whole labels at the start only, as in "*.example.com"';
  if (/[^\u0021-\u007e]/.test(name)) return 'write international names in their ASCII form ("xn--...")';
  if (!isHostName(name)) return "it is not a host name";
  return undefined;
}

/** True when the host, as the client wrote it, is one that the pattern names. */
export function matchHost(pattern: string, host: string): boolean {
  const name = normalizeHost(host);
  if (!isHostName(name)) return false;
  if (pattern === "*") return true;
  if (pattern.startsWith("*.")) return name.length > pattern.length - 1 && name.endsWith(pattern.slice(1));
  return name === pattern;
}
