// One stream to the server, kept alive: connects, reads frames, notices silence, waits and connects
// again. It knows nothing of tabs; where to start from it asks its host, each time anew.

import { createParser } from "eventsource-parser";
import { aborted } from "./aborted.js";
import type { Http } from "./http.js";
import { isFinal, ours, problemOf, TidingsError, type Problem } from "./problem.js";

/**
 * How a subscription stands, for people to see:
 * - `connecting`: for the first time
 * - `live`: everything missed has been received, and what follows comes as it is sent
 * - `reconnecting`: the connection or the server's database is away; nothing will be lost
 * - `offline`: the same, and the browser says that there is no network
 * - `closed`: ended by the application
 * - `failed`: ended by an error that trying again does not mend
 */
export type ConnectionState = "connecting" | "live" | "reconnecting" | "offline" | "closed" | "failed";

/** One event of the stream. */
export interface Frame {
  id?: string;
  event: string;
  data: string;
}

/** What a stream is asked for. */
export interface Wanted {
  /** What it follows on; `null` for only what comes. */
  after: string | null;
  topics: readonly string[];
}

/** Whom a connection serves. */
export interface Host {
  wanted(): Wanted;
  frame(frame: Frame): void;
  state(state: ConnectionState, problem?: Problem): void;
  failed(problem: Problem): void;
}

const FIRST_HEARTBEAT = 10_000; // ms, the server's default, until it has said its own
const FIRST_RETRY = 1_000; // ms, until the server has said its own
const LONGEST_RETRY = 30_000; // ms; longer only when the server says so

/** One stream at a time, for ever. */
export class Connection {
  /** ms between the server's pings. */
  heartbeat = FIRST_HEARTBEAT;
  #attempt = new AbortController();
  #wake: () => unknown = () => {}; // from a wait, if there is reason enough
  #again = false;
  #closed = false;
  #heard: number | undefined; // while there is an attempt: when it began or last got anything
  #retry = FIRST_RETRY;
  #failures = 0;
  #longest = 0; // ms that the last refusal asked for

  constructor(
    private readonly http: Http,
    private readonly address: string,
    private readonly host: Host,
  ) {}

  /** Connects again and again, until closed or told that it is no use. */
  async run(): Promise<void> {
    this.host.state("connecting");
    while (!this.#closed) {
      this.#again = false;
      this.#longest = 0;
      let problem: Problem | undefined;
      try {
        await this.#stream();
      } catch (error) {
        problem = problemOf(error);
        if (error instanceof TidingsError) this.#longest = (error.retryAfterSeconds ?? 0) * 1000;
      }
      this.#heard = undefined;
      this.#attempt.abort(); // an answer that was not read would keep its connection
      if (this.#closed || this.#again) continue;
      if (problem && isFinal(problem)) return this.host.failed(problem);
      this.host.state(globalThis.navigator?.onLine === false ? "offline" : "reconnecting", problem);
      await this.#pause();
    }
  }

  /** Replaces the stream at once: something else is wanted, or it may be dead without knowing. */
  restart(): void {
    this.#again = true;
    this.#attempt.abort();
    this.hurry();
  }

  /**
   * Waits no longer than the server asked for, now or after the try that is under way. What grows
   * begins anew, because a network that comes back, or a machine that wakes, is often not ready yet.
   */
  hurry(): void {
    this.#failures = 0;
    this.#wake();
  }

  /** Replaces a stream that has been silent for two pings; called by a timer and when a page wakes. */
  check(): void {
    // A clock that was set back must not hide a silence.
    if (this.#heard === undefined || Math.abs(Date.now() - this.#heard) < 2 * this.heartbeat) return;
    this.host.state("reconnecting");
    this.restart();
  }

  close(): void {
    this.#closed = true;
    this.restart();
  }

  async #stream(): Promise<void> {
    const { after, topics } = this.host.wanted();
    this.#attempt = new AbortController();
    this.#heard = Date.now();
    const { signal } = this.#attempt;
    const request = this.http.send(this.address, {
      query: { format: "envelope", topics },
      headers: { accept: "text/event-stream", "last-event-id": after ?? undefined },
      signal,
    });
    // A token provider that hangs cannot be given up, and must not be waited for either.
    const response = await Promise.race([request, aborted(signal)]);
    if (!response) return;
    if (!response.headers.get("content-type")?.startsWith("text/event-stream") || !response.body) {
      throw new TidingsError(ours("foreign-answer", `${this.address} did not answer with a stream.`, response.status));
    }
    const parser = createParser({
      onEvent: ({ id, event = "message", data }) => this.#frame({ ...(id && { id }), event, data }),
      onRetry: (ms) => (this.#retry = Math.max(ms, 1)), // 0 would never grow
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      // A stream that is cut ends like any other, and whoever comes back finds out what is wrong.
      const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
      if (done || signal.aborted) return;
      this.#heard = Date.now();
      parser.feed(decoder.decode(value, { stream: true }));
    }
  }

  #frame(frame: Frame): void {
    // A restart can come from within a chunk; the rest of it is of the stream that was given up.
    if (this.#attempt.signal.aborted) return;
    if (frame.event === "tidings.ready") {
      this.#failures = 0;
      this.heartbeat = JSON.parse(frame.data).heartbeat_seconds * 1000;
    }
    this.host.frame(frame);
  }

  /**
   * The newest `retry:` and up to half as much again, so that clients spread. Doubled with each
   * failure, but whoever hurries is spared what the server did not ask for, and nothing else: they
   * may do so any number of times.
   */
  async #pause(): Promise<void> {
    const spread = 1 + Math.random() / 2;
    const asked = Math.max(this.#retry, this.#longest);
    const grown = Math.min(this.#retry * 2 ** this.#failures++, LONGEST_RETRY);
    await this.#sleep(asked * spread, () => this.#closed);
    await this.#sleep((grown - asked) * spread, () => this.#closed || this.#failures === 0);
  }

  async #sleep(ms: number, enough: () => boolean): Promise<void> {
    if (ms <= 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => enough() && (clearTimeout(timer), resolve());
      this.#wake();
    });
  }
}
