// What the tabs of one origin tell each other about one user's stream. A member is a subscription;
// one of them leads: it alone has a connection, and tells the others what it receives.
//
// `leader` says when a leadership began, in ms and a random fraction. Whoever has heard of a later
// one does not listen to it any more: a page that lost its lock while frozen still answers messages.

import type { ConnectionState, Frame } from "./connection.js";
import type { Problem } from "./problem.js";

/** Tabs can run different versions of the package; only those with the same number talk. */
export const PROTOCOL = 3;

/** From a member: what it needs the stream to hold. The leader answers with `open` or `state`. */
export interface Want {
  type: "want";
  member: string;
  topics: readonly string[];
  /** The last id it has; `null` for only what comes. */
  after: string | null;
}

/** From a member: its topics are no longer needed. */
export interface Leave {
  type: "leave";
  member: string;
}

/** From a member: somebody looks at it, so the leader must not wait for its next try. */
export interface Hurry {
  type: "hurry";
  member: string;
}

/** From the leader: from frame `next` on, this stream holds all of `topics` that comes after `after`. */
export interface Open {
  type: "open";
  leader: number;
  stream: string;
  next: number;
  topics: readonly string[];
  after: string;
  /** Where the stream is. */
  position: string;
  /** Whether that is the head, where a member without a cursor begins. */
  live: boolean;
  /** ms between pings. */
  heartbeat: number;
}

/** From the leader: one frame of the stream. The numbers have no holes. */
export interface Passed {
  type: "frame";
  leader: number;
  stream: string;
  number: number;
  frame: Frame;
}

/** From the leader: a goodbye, which belongs to no position and can come before a stream is open. */
export interface Aside {
  type: "aside";
  leader: number;
  frame: Frame;
}

/**
 * From the leader's timer. Only this and what comes from the network are signs of life: a frozen page
 * has neither, while it still answers messages.
 */
export interface Beat {
  type: "beat";
  leader: number;
}

/** From the leader: how its connection stands. */
export interface State {
  type: "state";
  leader: number;
  state: ConnectionState;
  problem?: Problem | undefined;
}

/** From the leader: the server will not serve these members. */
export interface Fail {
  type: "fail";
  leader: number;
  members: readonly string[];
  problem: Problem;
}

/** Anything on the channel. */
export type Message = Want | Leave | Hurry | Open | Passed | Aside | Beat | State | Fail;
