// What one subscription has received, and so what it takes from the shared stream. Keeps the
// promise: each event once and in order, however often streams end, overlap or change leaders.
//
// It takes frames only from a stream that holds everything it lacks, and of those only what is above
// the last id it took. Whenever that is in doubt it takes nothing and says so; its tab then asks the
// leader to serve it from `received` on.

import type { Frame } from "./connection.js";
import { ZERO } from "./cursor.js";
import type { Open, Passed } from "./messages.js";
import type { Gap } from "./notification.js";

/** Something taken: what to handle, and the cursor once it is handled. */
export interface Step {
  frame?: Frame;
  id?: string;
}

/** One subscription's place in the stream. */
export class Follower {
  #stream: string | undefined;
  #next = 0;
  #position = "";
  #live = false;
  #aheadAt: string | undefined; // `received` when the last ping was below it

  constructor(
    /** The last id taken; `null` until a subscription without a cursor has reached the head. */
    public received: string | null,
    readonly topics: readonly string[],
    /** Began at `earliest`, where a gap is no news. */
    private quiet: boolean,
    private readonly deliver: (step: Step) => void,
  ) {}

  /** Whether everything missed has been taken. */
  get live(): boolean {
    return this.#stream !== undefined && this.#live;
  }

  /** Follows a stream from here on, if it holds everything that is lacking; says whether it does. */
  follow(open: Open): boolean {
    if (open.stream === this.#stream && open.next === this.#next) return true;
    const complete = this.received === null || open.after <= this.received;
    if (!complete || !this.topics.every((topic) => open.topics.includes(topic))) {
      this.lose();
      return false;
    }
    this.#stream = open.stream;
    this.#next = open.next;
    this.#position = open.position;
    this.#live = open.live;
    if (open.live) this.#begin();
    return true;
  }

  /** Takes nothing more until there is a stream to follow. */
  lose(): void {
    this.#stream = undefined;
  }

  /** Takes what is new in a frame; false if frames before it are missing. */
  take({ stream, number, frame }: Passed): boolean {
    if (stream !== this.#stream || number !== this.#next) {
      this.lose();
      return false;
    }
    this.#next++;
    if (frame.id) this.#position = frame.id;
    if (frame.event === "tidings.live") {
      this.#live = true;
      this.#begin();
    } else if (frame.event === "tidings.gap") {
      this.#gap(frame);
    } else if (frame.id && this.received !== null) {
      if (frame.id > this.received) this.#advance(frame.id, frame);
      else if (frame.event === "tidings.ping" && JSON.parse(frame.data).database === "up") this.#ping(frame.id);
    }
    return true;
  }

  #begin(): void {
    if (this.received === null) this.#advance(this.#position);
  }

  #advance(id: string, frame?: Frame): void {
    this.received = id;
    this.deliver(frame ? { id, frame } : { id });
  }

  #gap(frame: Frame): void {
    const { received } = this;
    const id = frame.id ?? ZERO;
    const { reason } = JSON.parse(frame.data) as Gap;
    // The stream may have begun below this member's place, with rows removed that it has.
    if (received === null || (reason === "expired" && received >= id)) return;
    if (reason === "expired" && this.quiet && received === ZERO) return this.#advance(id);
    this.#advance(id, frame);
  }

  /**
   * A live stream below this member's place means that a history was read a moment ago, or that the
   * cursor is of another database: then the member would be deaf until that database catches up.
   * The server finds that out when it is asked from that cursor, but a shared stream may never be. A
   * whole heartbeat later only the second is possible, if the stream's database is there.
   */
  #ping(id: string): void {
    const after = this.received;
    if (!this.#live || after === null || after === id) return;
    if (this.#aheadAt !== after) {
      this.#aheadAt = after;
      return;
    }
    const gap: Gap = { after, resumes_after: id, reason: "ahead" };
    this.#gap({ id, event: "tidings.gap", data: JSON.stringify(gap) });
  }
}
