// Internet addresses and CIDRs, IPv4 and IPv6, as numbers. IPv4-mapped IPv6 addresses (::ffff:a.b.c.d) are the
// IPv4 address they carry: that is where the kernel connects to.

export interface Address {
  readonly family: 4 | 6;
  readonly value: bigint;
}

export interface Cidr {
  readonly family: 4 | 6;
  readonly value: bigint;
  readonly bits: number;
}

const MAPPED = 0xffffn << 32n;

/** Strict: four decimal numbers without leading zeros, or RFC 4291 text. Undefined when it is no address. */
export function parseAddress(text: string): Address | undefined {
  const v4 = parseV4(text);
  if (v4 !== undefined) return { family: 4, value: v4 };
  const v6 = parseV6(text);
  if (v6 === undefined) return undefined;
  if (v6 >> 32n === MAPPED >> 32n) return { family: 4, value: v6 & 0xffffffffn };
  return { family: 6, value: v6 };
}

function parseV4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    // "010" is 8 to inet_aton and 10 to others: nobody should have to guess.
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(part);
  }
  return value;
}

function parseV6(text: string): bigint | undefined {
  if (text.length > 45 || !text.includes(":")) return undefined;
  let source = text;
  const lastColon = text.lastIndexOf(":");
  const tail = text.slice(lastColon + 1);
  if (tail.includes(".")) {
    const v4 = parseV4(tail);
    if (v4 === undefined) return undefined;
    source = `${text.slice(0, lastColon + 1)}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`;
  }
  const halves = source.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0] ?? "");
  const rest = halves.length === 2 ? groups(halves[1] ?? "") : [];
  if (head === undefined || rest === undefined) return undefined;
  const given = head.length + rest.length;
  if (halves.length === 2 ? given > 7 : given !== 8) return undefined;
  const all = [...head, ...new Array<bigint>(8 - given).fill(0n), ...rest];
  return all.reduce((value, group) => (value << 16n) | group, 0n);
}

function groups(text: string): bigint[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  if (!parts.every((part) => /^[0-9a-fA-F]{1,4}$/.test(part))) return undefined;
  return parts.map((part) => BigInt(`0x${part}`));
}

/** Reads a CIDR, or an address as the CIDR of it alone. */
export function parseCidr(text: string): Cidr | { readonly error: string } {
  const slash = text.indexOf("/");
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return { error: "it is not an IPv4 or IPv6 CIDR" };
  const width = address.family === 4 ? 32 : 128;
  if (slash < 0) return { ...address, bits: width };
  const length = text.slice(slash + 1);
  if (address.family === 4 && text.includes(":")) return { error: "write IPv4-mapped addresses as IPv4" };
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(length) || Number(length) > width) {
    return { error: `its prefix length must be 0 to ${width}` };
  }
  const cidr = { ...address, bits: Number(length) };
  const network = cidr.value & mask(cidr);
  if (network !== cidr.value) {
    return {
      error: `it has bits after its prefix; the network is ${formatCidr({ ...cidr, value: network })}`,
    };
  }
  return cidr;
}

function mask(cidr: Cidr): bigint {
  const width = cidr.family === 4 ? 32n : 128n;
  const host = width - BigInt(cidr.bits);
  return ((1n << width) - 1n) ^ ((1n << host) - 1n);
}

export function inCidr(cidr: Cidr, address: Address): boolean {
  return cidr.family === address.family && (address.value & mask(cidr)) === cidr.value;
}

/** True when the two have an address in common. */
export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.bits <= b.bits ? inCidr(a, b) : inCidr(b, a);
}

/** The one spelling under which a CIDR goes into tables. */
export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr)}/${cidr.bits}`;
}

export function formatAddress(address: Address): string {
  if (address.family === 4) {
    return [24n, 16n, 8n, 0n].map((shift) => String((address.value >> shift) & 0xffn)).join(".");
  }
  const all = Array.from({ length: 8 }, (_, i) => (address.value >> BigInt(112 - 16 * i)) & 0xffffn);
  // RFC 5952: the longest run of two or more zero groups becomes "::", the first one when there are several.
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && all[i + n] === 0n) n++;
    if (n > best.length) best = { start: i, length: n };
    if (n > 0) i += n - 1;
  }
  const hex = all.map((group) => group.toString(16));
  if (best.start < 0) return hex.join(":");
  return `${hex.slice(0, best.start).join(":")}::${hex.slice(best.start + best.length).join(":")}`;
}
