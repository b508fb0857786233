/** Names that both sides of the control socket know. */

/** The contract's grammar of sandbox names. */
export const SANDBOX_NAME = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/;

/** Metadata key of Run with the caller's TERM, for a sandbox with a terminal. */
export const TERM_KEY = "clawsec-term";
