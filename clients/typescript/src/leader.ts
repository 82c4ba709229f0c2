// The subscription that has the connection, on behalf of all: asks for what they all need together,
// and passes on what comes. It keeps no frames: a member that lacks some makes the connection start
// again below them, and whoever has them already does not take them twice.

import { Connection, type ConnectionState, type Frame, type Host, type Wanted } from "./connection.js";
import { ZERO } from "./cursor.js";
import type { Http } from "./http.js";
import type { Message, Want } from "./messages.js";
import type { Problem } from "./problem.js";

// Topics that another leader served: kept for the first connection, as its members may not have
// spoken up yet.
const INHERITED = "";

/** The one connection of a user's tabs. */
export class Leader implements Host {
  readonly #connection: Connection;
  readonly #members = new Map<string, readonly string[]>();
  #asked: Wanted = { after: null, topics: [] };
  #state: ConnectionState = "connecting";
  #problem: Problem | undefined;
  #streams = 0;
  #next = 0;
  #open = false;
  #live = false;
  #position: string | null; // up to where everything was passed on: the next connection follows on it

  constructor(
    /** Since when. */
    readonly id: number,
    /** What the leading subscription itself wants. */
    private readonly own: Want,
    inherited: readonly string[],
    http: Http,
    address: string,
    private readonly post: (message: Message) => void,
  ) {
    this.#position = own.after;
    this.#members.set(own.member, own.topics).set(INHERITED, inherited);
    this.#connection = new Connection(http, address, this);
  }

  start(): void {
    void this.#connection.run();
  }

  /** Serves a member, by a new connection if this one does not hold what it lacks; whether it is new. */
  want({ member, topics, after }: Want): boolean {
    const fresh = !this.#members.has(member);
    this.#members.set(member, topics);
    const lower = after !== null && (this.#position === null || after < this.#position);
    if (lower) this.#position = after;
    if (lower || !topics.every((topic) => this.#asked.topics.includes(topic))) this.restart();
    else if (this.#open) this.#announce(this.#position ?? ZERO);
    else this.hurry();
    this.#tell();
    return fresh;
  }

  leave(member: string): void {
    this.#members.delete(member);
  }

  /** Looks after the connection, and tells that this leader is alive. */
  tick(): void {
    this.#connection.check();
    this.post({ type: "beat", leader: this.id });
  }

  /** Somebody looks: a silent stream is replaced, and a wait for the next try cut short. */
  hurry(): void {
    this.#connection.check();
    this.#connection.hurry();
  }

  /** Replaces the connection at once. */
  restart(): void {
    this.#open = false;
    this.#connection.restart();
  }

  close(): void {
    this.#connection.close();
  }

  wanted(): Wanted {
    this.#open = this.#live = false;
    this.#asked = { after: this.#position, topics: this.#topics() };
    return this.#asked;
  }

  frame(frame: Frame): void {
    const { id, event } = frame;
    if (id) this.#position = id;
    if (event === "tidings.goodbye") return this.post({ type: "aside", leader: this.id, frame });
    if (event === "tidings.ready") return this.#opened(id ?? ZERO);
    if (!this.#open) return; // a ping of a stream whose start is not known yet
    this.post({ type: "frame", leader: this.id, stream: this.#stream(), number: this.#next++, frame });
    if (event === "tidings.live") this.#live = true;
    if (event === "tidings.ping" && JSON.parse(frame.data).database !== "up") this.state("reconnecting");
    else if (this.#live && this.#state !== "live") this.state("live");
  }

  state(state: ConnectionState, problem?: Problem): void {
    this.#state = state;
    this.#problem = problem;
    this.#tell();
  }

  /** Whoever asks for more than this member may be why, and is let down first. */
  failed(problem: Problem): void {
    const { topics, member } = this.own;
    const others = [...this.#members].filter(([, wanted]) => !wanted.every((topic) => topics.includes(topic))).map(([id]) => id);
    for (const other of others) this.#members.delete(other);
    this.post({ type: "fail", leader: this.id, members: others.length ? others : [member], problem });
    if (others.length) this.start();
  }

  #tell(): void {
    this.post({ type: "state", leader: this.id, state: this.#state, problem: this.#problem });
  }

  #topics(): string[] {
    return [...new Set([...this.#members.values()].flat())].sort();
  }

  #stream(): string {
    return `${this.id}/${this.#streams}`;
  }

  #opened(start: string): void {
    this.#members.delete(INHERITED);
    this.#open = true;
    this.#streams++;
    this.#next = 0;
    // Without a cursor the server starts at the head.
    this.#live = this.#asked.after === null;
    this.#announce(this.#asked.after ?? start);
  }

  #announce(after: string): void {
    this.post({
      type: "open",
      leader: this.id,
      stream: this.#stream(),
      next: this.#next,
      topics: this.#asked.topics,
      after,
      position: this.#position ?? ZERO,
      live: this.#live,
      heartbeat: this.#connection.heartbeat,
    });
  }
}
