// What the tabs of one origin tell each other about one user's stream. A member is a subscription;
// one of them leads: it alone has a connection, and tells the others what it receives.

import type { ConnectionState, Frame } from "./connection.js";
import type { Problem } from "./problem.js";

/** Tabs can run different versions of the package; only those with the same number talk. */
export const PROTOCOL = 1;

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

/** From the leader: from frame `next` on, this stream holds all of `topics` that comes after `after`. */
export interface Open {
  type: "open";
  leader: string;
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
  leader: string;
  stream: string;
  number: number;
  frame: Frame;
}

/** From the leader: a goodbye, which belongs to no position and can come before a stream is open. */
export interface Aside {
  type: "aside";
  leader: string;
  frame: Frame;
}

/** From the leader, also regularly, as a sign of life. */
export interface State {
  type: "state";
  leader: string;
  state: ConnectionState;
  problem?: Problem | undefined;
}

/** From the leader: the server will not serve these members. */
export interface Fail {
  type: "fail";
  leader: string;
  members: readonly string[];
  problem: Problem;
}

/** Anything on the channel. */
export type Message = Want | Leave | Open | Passed | Aside | State | Fail;
