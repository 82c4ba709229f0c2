// Asking until there is an answer. The package does that for streams; a history that is asked for
// before or beside a stream needs the same, or a page that is opened while the server is away stays empty.

import { TidingsError, type Problem } from "@tidings/client";

const FIRST = 1_000; // ms
const LONGEST = 30_000; // ms, as the package does
const HURRY = ["online", "visibilitychange"]; // the network came, or somebody looks
const TICK = 2_500; // ms
const ASLEEP = 10_000; // ms between two ticks, of a machine that slept: often nothing else tells

/** Waiting to ask again, which somebody who knows better can cut short. */
export class Retry {
  #wake = () => {};

  /** Asks again at once. */
  now(): void {
    this.#wake();
  }

  /** The first answer; a refusal that asking again does not mend, and an abort, are thrown. */
  async until<T>(ask: () => Promise<T>, signal: AbortSignal, failed: (problem: Problem) => void): Promise<T> {
    let looked = new AbortController();
    let failures = 0;
    const hurry = () => {
      if (globalThis.document?.hidden) return;
      failures = 0; // whatever came back may not be ready yet
      looked.abort();
    };
    for (const event of HURRY) globalThis.addEventListener?.(event, hurry);
    let ticked = Date.now();
    const timer = setInterval(() => {
      if (Math.abs(Date.now() - ticked) > ASLEEP) hurry();
      ticked = Date.now();
    }, TICK);
    try {
      for (;;) {
        looked = new AbortController();
        try {
          return await ask();
        } catch (error) {
          if (signal.aborted || !(error instanceof TidingsError) || error.final) throw error;
          failed(error.problem);
          const least = Math.max(FIRST, (error.retryAfterSeconds ?? 0) * 1000);
          await this.#pause(least, Math.min(FIRST * 2 ** failures++, LONGEST), signal, looked.signal);
        }
        signal.throwIfAborted();
      }
    } finally {
      clearInterval(timer);
      for (const event of HURRY) globalThis.removeEventListener?.(event, hurry);
    }
  }

  /** Up to half as much again, so that clients spread. What is above `least`, nobody has to wait who looks. */
  async #pause(least: number, grown: number, signal: AbortSignal, looked: AbortSignal): Promise<void> {
    const spread = 1 + Math.random() / 2;
    const now = new AbortController();
    this.#wake = () => now.abort();
    const stop = AbortSignal.any([signal, now.signal]);
    await sleep(least * spread, stop);
    await sleep((grown - least) * spread, AbortSignal.any([stop, looked]));
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
