/** Searching the audit: a request becomes a WHERE clause with bound values, a row becomes a record. */
import type { AuditRecord, QueryAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import { Event } from "../../../proto/gen/clawsec/v1/loader.js";
import { factsOf } from "./record.js";

export const DEFAULT_LIMIT = 100;
export const MAX_LIMIT = 10_000;

/** A row of the table. */
export interface Row {
  id: number;
  time_us: number;
  sandbox: string;
  subject: string;
  exec_id: string;
  parents: string;
  kind: string;
  summary: string;
  /** JSON; "" where `event` is. */
  facts: string;
  /** The bytes of a loader's event, as they came. */
  event: Buffer | null;
  verdict: number;
  rule: string;
  layer: string;
  policy_hash: string;
  latency_us: number;
  pid: number;
  severity: string;
  tags: string;
}

/** Ids of all execs that one led to, by way of the parent that each exec's record names first. Uses audit_by_parent. */
const LED_TO = `
WITH RECURSIVE led(id) AS (
  SELECT ? UNION SELECT audit.exec_id FROM led JOIN audit ON json_extract(audit.parents, '$[0]') = led.id
    WHERE audit.kind = 'exec' AND audit.exec_id <> ''
) SELECT id FROM led WHERE id <> ?`;

export type Filter = Partial<Omit<QueryAuditRequest, "limit">>;

/** The WHERE clause of a filter ("" for none) and its values in order. */
export function filterOf(filter: Filter): { where: string; values: (string | number)[] } {
  const terms: string[] = [];
  const values: (string | number)[] = [];
  const add = (term: string, ...bound: (string | number)[]) => {
    terms.push(term);
    values.push(...bound);
  };
  if (filter.sandbox) add("sandbox = ?", filter.sandbox);
  if (filter.kinds?.length) add(`kind IN (${marks(filter.kinds)})`, ...filter.kinds);
  if (filter.verdicts?.length) add(`verdict IN (${marks(filter.verdicts)})`, ...filter.verdicts);
  if (filter.severities?.length) add(`severity IN (${marks(filter.severities)})`, ...filter.severities);
  if (filter.tag) add("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", filter.tag);
  if (filter.sinceUs) add("time_us >= ?", filter.sinceUs);
  if (filter.untilUs) add("time_us <= ?", filter.untilUs);
  if (filter.afterId) add("id > ?", filter.afterId);
  if (filter.beforeId) add("id < ?", filter.beforeId);
  if (filter.execId) add("exec_id = ?", filter.execId);
  if (filter.ancestor) add(`exec_id IN (${LED_TO})`, filter.ancestor, filter.ancestor);
  if (filter.text) {
    const text = filter.text.toLowerCase();
    add("(instr(fold(summary), ?) > 0 OR instr(fold(rule), ?) > 0)", text, text);
  }
  return { where: terms.length === 0 ? "" : `WHERE ${terms.join(" AND ")}`, values };
}

/** The record of a row. */
export function toRecord(row: Row): AuditRecord {
  return {
    id: row.id,
    timeUs: row.time_us,
    sandbox: row.sandbox,
    subject: row.subject,
    execId: row.exec_id,
    parents: JSON.parse(row.parents) as string[],
    kind: row.kind,
    summary: row.summary,
    facts: row.event === null ? row.facts : factsOf(Event.decode(row.event)),
    verdict: row.verdict,
    rule: row.rule,
    layer: row.layer,
    policyHash: row.policy_hash,
    latencyUs: row.latency_us,
    pid: row.pid,
    severity: row.severity,
    tags: JSON.parse(row.tags) as string[],
  };
}

function marks(values: readonly unknown[]): string {
  return values.map(() => "?").join(", ");
}
