/** Microseconds since the Unix epoch, the unit of the contract. Wall time: follows the host's clock. */
export function nowUs(): number {
  return Date.now() * 1000;
}
