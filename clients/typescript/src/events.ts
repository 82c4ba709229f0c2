// One subscription from its cursor to the application: the events in order, each once. The cursor is
// kept when the application asks for the next event, because only then has it handled the last.

import type { ConnectionState, Frame } from "./connection.js";
import { normalized, ZERO, type CursorStorage } from "./cursor.js";
import { Follower, type Step } from "./follower.js";
import type { Http } from "./http.js";
import type { Notification, TidingsEvent } from "./notification.js";
import { TidingsError, type Problem } from "./problem.js";
import { Tab } from "./tab.js";

/** What to subscribe to, and how. */
export interface SubscribeOptions {
  /** Topics besides the user's own notifications and everyone's: up to 100 in all tabs together. */
  topics?: readonly string[];
  /**
   * Where to begin: an id, such as a history's `cursor`, or `earliest` for everything kept. If absent,
   * after what this browser handled last, and if that is nothing, with what comes from now on.
   */
  from?: string | null;
  /** Ends the subscription. */
  signal?: AbortSignal;
  /** Told the connection's state whenever it changes, and if there is one, the problem behind it. */
  onConnection?(state: ConnectionState, problem?: Problem): void;
}

/** What a client has for all its subscriptions. */
export interface Setting {
  http: Http;
  address: string;
  storage: CursorStorage;
  share: boolean;
  info(message: string): void;
  parse(text: string): unknown;
}

// So many events may wait for a slow handler. Then no more are taken until it is done with these, and
// the stream starts again behind them: the server keeps them better than a page does.
const LONGEST_QUEUE = 1_000;

export async function* events<Events extends object>(
  setting: Setting,
  options: SubscribeOptions,
): AsyncGenerator<TidingsEvent<Events>, void, undefined> {
  const topics = [...new Set(options.topics)].sort();
  const key = `tidings:${setting.address}?topics=${topics.map(encodeURIComponent).join()}`;
  const from = options.from ?? (await setting.storage.get(key));
  const earliest = from === "earliest";
  const start = earliest ? ZERO : from ? normalized(from) : null;
  // A reload before the first event must not begin at the head.
  if (start) await setting.storage.set(key, start);

  const queue: Step[] = [];
  let wake = () => {};
  let failure: TidingsError | undefined;
  let state: ConnectionState | undefined;
  let detail: string | undefined;
  const push = (step: Step) => {
    if (queue.push(step) >= LONGEST_QUEUE) tab.pause();
    wake();
  };
  const changed = (next: ConnectionState, problem?: Problem) => {
    // A new leader connects for the first time, but its followers do so again.
    if (next === "connecting" && state) return;
    if (next === state && problem?.detail === detail) return; // a sign of life
    state = next;
    detail = problem?.detail;
    // Not from here, where an error of the application's would break the connection.
    queueMicrotask(() => options.onConnection?.(next, problem));
  };
  changed("connecting");
  const tab: Tab = new Tab({
    ...setting,
    follower: new Follower(start, topics, earliest, push),
    onState: changed,
    onAside: (frame) => push({ frame }),
    onFail: (problem) => ((failure = new TidingsError(problem)), wake()),
  });
  const { signal } = options;
  // At once, though a handler may still be busy.
  const stop = () => (tab.close(), wake());
  signal?.addEventListener("abort", stop);
  try {
    while (!signal?.aborted) {
      const step = queue.shift();
      if (step) {
        const event = step.frame && toEvent<Events>(step.frame, topics, setting.parse);
        if (event) yield event;
        if (step.id) await setting.storage.set(key, step.id);
      } else if (failure) {
        throw failure;
      } else {
        tab.unpause();
        if (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      }
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    tab.close();
    changed(failure ? "failed" : "closed", failure?.problem);
  }
}

/** What a frame is to the application; nothing if it only moves the cursor. */
function toEvent<Events extends object>(
  { id, event, data }: Frame,
  topics: readonly string[],
  parse: (text: string) => unknown,
): TidingsEvent<Events> | undefined {
  if (!event.startsWith("tidings.")) {
    const notification = parse(data) as Notification<Events>;
    const { audience } = notification;
    const foreign = typeof audience === "object" && "topic" in audience && !topics.includes(audience.topic);
    return foreign ? undefined : { type: "notification", ...notification };
  }
  const type = event.slice("tidings.".length);
  if (type !== "state" && type !== "gap" && type !== "goodbye") return undefined;
  return { ...(id && { id }), ...JSON.parse(data), type };
}

