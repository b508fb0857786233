/** What the supervisor is made of, as the Control handlers use it. */
import type { Logger } from "../common/log.js";
import type { Paths } from "../common/paths.js";
import type { Audit } from "./audit/audit.js";
import type { HoldRecords } from "./audit/hold-records.js";
import type { ControlSocket } from "./control/server.js";
import type { Decider } from "./decide/decider.js";
import type { HealthMonitor } from "./health/monitor.js";
import type { HoldBook } from "./holds/book.js";
import type { LoaderLink } from "./loader/link.js";
import type { SandboxRegistry } from "./sandboxes/registry.js";

export interface Parts {
  readonly paths: Paths;
  readonly log: Logger;
  readonly startedUs: number;
  readonly audit: Audit;
  readonly holdRecords: HoldRecords;
  readonly holds: HoldBook;
  readonly health: HealthMonitor;
  readonly link: LoaderLink;
  readonly sandboxes: SandboxRegistry;
  readonly decider: Decider;
  readonly socket: ControlSocket;
}
