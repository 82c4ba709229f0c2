// An application that sends to a user all the time, also while the server is away.

import { setTimeout as pause } from "node:timers/promises";
import { Seen } from "../../../typescript/build/harness/wait.js";
import type { Server } from "../../../typescript/build/harness/server.js";

const PACE = 150; // ms between two sends

export class Sending {
  /** Ids that were answered 201, so each of these is stored. */
  readonly answered = new Seen<string>();
  /** Why others were answered otherwise, or not at all: these may be stored. */
  readonly failed = new Seen<string>();
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(
    private readonly server: Server,
    private readonly to: string,
  ) {
    this.#done = this.#run();
  }

  /** Resolves when so many more have been answered. */
  async more(count: number): Promise<void> {
    await this.answered.count(this.answered.all.length + count, "answered send");
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #run(): Promise<void> {
    for (let n = 0; !this.#stopped; n++) {
      try {
        // Every third has a name, as applications mix them.
        this.answered.push((await this.server.send(this.to, { n }, n % 3 ? undefined : "order.shipped")).id);
      } catch (error) {
        this.failed.push(String(error));
      }
      await pause(PACE);
    }
  }
}
