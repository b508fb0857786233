/** Writes the records of holds, and says when they are durable: what follows from a hold waits for them. */
import type { Hold, HoldChangeKind } from "../../../proto/gen/clawsec/v1/control.js";
import { sentence } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";
import { holdRecord } from "./hold-record.js";
import type { NewRecord } from "./record.js";

export class HoldRecords {
  readonly #append: (record: NewRecord) => Promise<void>;
  readonly #log: Logger;
  /** The newest record of each hold that is not durable yet, by the hold's id. */
  readonly #underWay = new Map<string, Promise<void>>();

  constructor(append: (record: NewRecord) => Promise<void>, log: Logger) {
    this.#append = append;
    this.#log = log;
  }

  /** Begins to write that a hold was opened or has ended. */
  write(kind: HoldChangeKind, hold: Hold): void {
    const written = this.#append(holdRecord(kind, hold));
    this.#underWay.set(hold.id, written);
    const over = () => {
      if (this.#underWay.get(hold.id) === written) this.#underWay.delete(hold.id);
    };
    written.then(over, (error: unknown) => {
      over();
      this.#log.error({ hold: hold.id, error: sentence(error) }, "a hold could not be recorded");
    });
  }

  /**
   * Resolves when all records of a hold are durable, and rejects when the newest one cannot be written. Undefined when
   * none is under way.
   */
  written(holdId: string): Promise<void> | undefined {
    return this.#underWay.get(holdId);
  }
}
