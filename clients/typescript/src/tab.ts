// A subscription among those of the other tabs: elects a leader by a lock, replaces one that is
// silent, and takes from the shared stream what its follower lacks.
//
// A frozen page keeps its lock, and has no timers and no network. So it gives the lock back when told
// that it will be frozen, and if it was not told, the others take the lock after two silent pings.
// Each member has a lock of its own too, for a page that is killed says nothing: who leads waits for it.

import { aborted } from "./aborted.js";
import type { Channel } from "./channel.js";
import type { ConnectionState, Frame } from "./connection.js";
import type { Follower } from "./follower.js";
import type { Http } from "./http.js";
import { Leader } from "./leader.js";
import { meeting, pageLocks, type LockChoice, type Locks } from "./locks.js";
import { PROTOCOL, type Message, type State, type Want } from "./messages.js";
import { wakes, watchPage } from "./page.js";
import type { Problem } from "./problem.js";

/** What a tab needs, and whom it tells. */
export interface TabOptions {
  http: Http;
  /** Of the stream: also tells users, apps and servers apart. */
  address: string;
  follower: Follower;
  share: boolean;
  info(message: string): void;
  onState(state: ConnectionState, problem?: Problem): void;
  onAside(frame: Frame): void;
  onFail(problem: Problem): void;
}

/** One subscription's part in the sharing. */
export class Tab {
  readonly #id = Math.random().toString(36).slice(2);
  readonly #options: TabOptions;
  readonly #unwatch: () => void;
  readonly #woke = wakes();
  readonly #name: string;
  readonly #open: (name: string) => Channel;
  #locks: Locks;
  #lock = new AbortController();
  #present = new AbortController();
  #channel: Channel | undefined;
  #leading: Leader | undefined;
  #leader = 0;
  #topics: readonly string[] = []; // of the last stream heard of
  #heartbeat = 10_000; // ms, until the leader has said the server's
  #state: State | undefined; // the leader's
  #heard = 0;
  #suspected = false;
  #waiting = false;
  #paused = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: TabOptions) {
    this.#options = options;
    this.#name = `tidings/${PROTOCOL}:${options.address}`;
    const { locks, channel } = meeting(options.share, options.info);
    this.#locks = locks;
    this.#open = channel;
    this.#unwatch = watchPage({
      // What was connected before may be dead without knowing.
      online: () => this.#leading?.restart(),
      offline: () => this.#leading?.state("offline"),
      visible: () => (this.#resume(), this.#tick(), this.#hurry()),
      suspend: () => this.#suspend(),
      resume: () => this.#resume(),
    });
    this.#resume();
  }

  close(): void {
    this.#unwatch();
    this.#suspend();
  }

  /** Takes nothing for a while: its reader is behind, and what is missed will be asked for again. */
  pause(): void {
    this.#paused = true;
    this.#options.follower.lose();
  }

  unpause(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#want();
  }

  #resume(): void {
    if (this.#channel) return;
    this.#channel = this.#open(this.#name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    this.#heard = Date.now();
    const { signal } = (this.#present = new AbortController());
    // Before it is heard of: a member whose lock is free is one that is gone.
    this.#whenFree(this.#id, { signal }, () => aborted(signal));
    this.#elect(false);
    this.#want();
    this.#schedule(this.#heartbeat);
  }

  #suspend(): void {
    if (!this.#channel) return;
    clearInterval(this.#timer);
    this.#present.abort();
    this.#lock.abort();
    this.#stopLeading();
    this.#post({ type: "leave", member: this.#id });
    this.#channel.close();
    this.#channel = undefined;
    this.#options.follower.lose();
  }

  #elect(steal: boolean): void {
    this.#lock.abort();
    const lock = (this.#lock = new AbortController());
    const hold = () => {
      if (!lock.signal.aborted) this.#lead();
      return aborted(lock.signal);
    };
    this.#locks.request(this.#name, steal ? { steal } : { signal: lock.signal }, hold).catch((error: Error) => {
      if (lock.signal.aborted) return;
      // AbortError: taken by a tab that thought this one dead. Anything else: no locks in this frame.
      if (error.name !== "AbortError") this.#locks = pageLocks;
      this.#stopLeading();
      this.#elect(false);
    });
  }

  /** Does something when a member's lock is free. Without locks a page is alone, and its members go together. */
  #whenFree(member: string, options: LockChoice, then: () => Promise<void>): void {
    if (this.#locks === pageLocks) return;
    this.#locks.request(`${this.#name}/${member}`, options, then).catch(() => {});
  }

  #lead(): void {
    const { http, address } = this.#options;
    const since = Math.max(Date.now(), this.#leader + 1) + Math.random();
    this.#leading = new Leader(since, this.#wanted(), this.#topics, http, address, (message) => this.#post(message));
    this.#leading.start();
  }

  #stopLeading(): void {
    this.#leading?.close();
    this.#leading = undefined;
  }

  #post(message: Message): void {
    this.#channel?.postMessage(message);
    this.#receive(message); // a channel does not bring its own messages
  }

  #wanted(): Want {
    const { topics, received } = this.#options.follower;
    return { type: "want", member: this.#id, topics, after: received };
  }

  #want(): void {
    if (this.#paused) return;
    this.#waiting = true;
    this.#post(this.#wanted());
  }

  #hurry(): void {
    this.#post({ type: "hurry", member: this.#id });
  }

  #receive(message: Message): void {
    if (!this.#channel) return;
    const leading = this.#leading;
    if (message.type === "want") {
      // Shared, for a leader that was frozen without a word waits for it too.
      const options = { signal: this.#lock.signal, mode: "shared" } as const;
      if (leading?.want(message)) this.#whenFree(message.member, options, async () => leading.leave(message.member));
      return;
    }
    if (message.type === "leave") return leading?.leave(message.member);
    if (message.type === "hurry") return leading?.hurry();
    if (message.leader < this.#leader) return;
    const { type, leader } = message;
    if (type !== "open" && type !== "state") this.#alive();
    if (leader !== this.#leader) this.#newLeader(leader);
    this.#fromLeader(message);
  }

  #alive(): void {
    this.#heard = Date.now();
    this.#suspected = false;
  }

  #newLeader(leader: number): void {
    this.#leader = leader;
    this.#alive();
    if (this.#leading && this.#leading.id !== leader) {
      // The lock was lost while this page was frozen, and its news has not come yet.
      this.#stopLeading();
      this.#elect(false);
    }
    this.#options.follower.lose();
    this.#want();
  }

  #fromLeader(message: Exclude<Message, { member: string }>): void {
    const { follower, onAside, onFail } = this.#options;
    switch (message.type) {
      case "open":
        this.#topics = message.topics;
        if (message.heartbeat !== this.#heartbeat) this.#schedule((this.#heartbeat = message.heartbeat));
        if (this.#paused) return;
        if (follower.follow(message)) this.#waiting = false;
        else this.#want();
        return this.#tell();
      case "frame":
        if (!this.#paused && !follower.take(message) && !this.#waiting) this.#want();
        return this.#tell();
      case "aside":
        return onAside(message.frame);
      case "state":
        this.#state = message;
        return this.#tell();
      case "fail":
        if (message.members.includes(this.#id)) onFail(message.problem);
    }
  }

  /** What is live for the leader is not yet for a member that still gets what it missed. */
  #tell(): void {
    if (!this.#state) return;
    const { state, problem } = this.#state;
    this.#options.onState(state === "live" && !this.#options.follower.live ? "connecting" : state, problem);
  }

  #schedule(heartbeat: number): void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), heartbeat / 4);
  }

  /**
   * After a sleep a timer can come before the messages that were waiting, so a silent leader is only
   * suspected at first, and is taken for dead if it is silent still the next time.
   */
  #tick(): void {
    if (this.#woke(this.#heartbeat)) this.#hurry();
    if (this.#leading) return this.#leading.tick();
    if (Math.abs(Date.now() - this.#heard) < 2 * this.#heartbeat) return;
    if (this.#suspected) {
      this.#alive();
      this.#elect(true);
    } else this.#suspected = true;
  }
}
