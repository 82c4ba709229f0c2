// Asking until there is an answer. The package does that for streams; a history that is asked for
// before or beside a stream needs the same, or a page that is opened while the server is away stays empty.

import { TidingsError, type Problem } from "@tidings/client";

const FIRST = 1_000; // ms
const LONGEST = 30_000; // ms, as the package does
const HURRY = ["online", "visibilitychange"]; // the network came, or somebody looks

/** Waiting to ask again, which somebody who knows better can cut short. */
export class Retry {
  #wake = () => {};

  /** Asks again at once. */
  now(): void {
    this.#wake();
  }

  /** The first answer; a refusal that asking again does not mend, and an abort, are thrown. */
  async until<T>(ask: () => Promise<T>, signal: AbortSignal, failed: (problem: Problem) => void): Promise<T> {
    for (let failures = 0; ; failures++) {
      try {
        return await ask();
      } catch (error) {
        if (signal.aborted || !(error instanceof TidingsError) || isFinal(error)) throw error;
        failed(error.problem);
        await this.#pause(Math.max(FIRST, (error.retryAfterSeconds ?? 0) * 1000), Math.min(FIRST * 2 ** failures, LONGEST), signal);
      }
      signal.throwIfAborted();
    }
  }

  /** Up to half as much again, so that clients spread. What is above `least`, nobody has to wait who looks. */
  async #pause(least: number, grown: number, signal: AbortSignal): Promise<void> {
    const spread = 1 + Math.random() / 2;
    const [now, looked] = [new AbortController(), new AbortController()];
    const hurry = () => globalThis.document?.hidden || looked.abort();
    this.#wake = () => now.abort();
    for (const event of HURRY) globalThis.addEventListener?.(event, hurry);
    const stop = AbortSignal.any([signal, now.signal]);
    await sleep(least * spread, stop);
    await sleep((grown - least) * spread, AbortSignal.any([stop, looked.signal]));
    for (const event of HURRY) globalThis.removeEventListener?.(event, hurry);
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const wake = () => (clearTimeout(timer), resolve());
    if (signal.aborted) wake();
    signal.addEventListener("abort", wake);
  });
}

/** Tidings itself asks for a change; a 4xx of something in between passes, as during a deployment. */
function isFinal({ problem, status }: TidingsError): boolean {
  const clients = status >= 400 && status < 500 && status !== 408 && status !== 429;
  return problem.type.startsWith("urn:tidings:problem:") && (clients || status === 501);
}
