// How it stands, in words for people. Calm ones: while the server or the network is away nothing is
// lost, and there is nothing to do.

import type { ConnectionState, Gap, Problem } from "@tidings/client";

/** What a person is told of the connection. */
export const CONNECTION_WORDS: Record<ConnectionState, string> = {
  connecting: "Connecting…",
  live: "Up to date",
  reconnecting: "Reconnecting. Nothing will be lost.",
  offline: "Offline. Nothing will be lost.",
  closed: "Not connected",
  failed: "Not available",
};

/** Why notifications may be missing. */
export const GAP_WORDS: Record<Gap["reason"], string> = {
  expired: "This page was away for longer than the server keeps notifications. What it still has is shown.",
  ahead: "The server has another database than before, or an older one. What it has is shown.",
  restored: "The server was restored from a backup, which may lack the newest notifications. What it has is shown.",
  "bad-cursor": "The place up to which this page had everything was damaged. What the server has is shown.",
};

/** A problem for people: what it is, and what helps. */
export interface ProblemWords {
  /** A short sentence. */
  title: string;
  /** What to do about it, or what the server says. */
  detail: string;
  /** A setting of the server that mends it, to be copied. */
  setting?: string;
}

/** Says what is wrong, and who can mend it how. */
export function problemWords(problem: Problem, origin = globalThis.location?.origin): ProblemWords {
  const detail = problem.detail ?? problem.title;
  switch (problem.type) {
    case "urn:tidings:client:foreign-page":
      return {
        title: "The server does not answer to this page",
        detail: `It is running, but it was not told to answer to pages of ${origin}. Add this to its settings (several origins with commas between them), and start it again:`,
        setting: `TIDINGS_CORS_ORIGINS=${origin}`,
      };
    case "urn:tidings:client:unreachable":
      return { title: "The server cannot be reached", detail: "It is asked again and again. Is its address right, and is it running?" };
    case "urn:tidings:client:foreign-answer":
      return { title: "Something else answers", detail: `${detail} Is the server's address right?` };
    default:
      return { title: problem.status >= 500 ? "The server cannot answer now" : "The server refuses this", detail };
  }
}
