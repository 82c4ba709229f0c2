// The package's front: one user of one app at one server.

import type { ConnectionState } from "./connection.js";
import { browserStorage, type CursorStorage } from "./cursor.js";
import { events, type Setting, type SubscribeOptions } from "./events.js";
import { Http, type HttpOptions, type Request } from "./http.js";
import type {
  Audience,
  Counts,
  Gap,
  Goodbye,
  HistoryPage,
  Mark,
  Marked,
  NewNotification,
  Notification,
  NotificationOf,
  Recipient,
  Scheduled,
  Sent,
  SentToMany,
  StateChange,
  StoredNotification,
  TidingsEvent,
  Which,
} from "./notification.js";

/** Who, where and how. */
export interface ClientOptions extends HttpOptions {
  /** The app. */
  app: string;
  /** The user. */
  user: string;
  /** Where cursors are kept over reloads; by default `localStorage`, and memory where there is none. */
  storage?: CursorStorage;
  /** Whether all tabs share one connection (default), or this one has its own. */
  share?: boolean;
  /** Reads the server's JSON; by default `JSON.parse`, which rounds numbers above 2^53. */
  parse?(text: string): unknown;
  /** Told, once, what does not work as well here as elsewhere; by default `console.info`. */
  info?(message: string): void;
}

/** What to do with what comes. Each is awaited before the next is called, and before the cursor moves. */
export interface Handlers<Events extends object = Record<string, unknown>> {
  /** Every notification. */
  notification?(notification: Notification<Events>): unknown;
  /** Notifications by event name, after `notification`. */
  on?: { [Name in keyof Events & string]?: (notification: NotificationOf<Name, Events[Name]>) => unknown };
  /** Notifications were marked, withdrawn or replaced, here or anywhere. */
  state?(change: StateChange): unknown;
  /** Notifications may be missing: load the history again. */
  gap?(gap: Gap): unknown;
  /** The server ended the stream on purpose; the package comes back by itself. */
  goodbye?(goodbye: Goodbye): unknown;
  /** The subscription ended: the server refuses it, or a handler failed. By default it is thrown globally. */
  error?(error: unknown): void;
}

/** A running subscription. */
export interface Subscription {
  /** How it stands. */
  readonly connection: ConnectionState;
  /** Ends it; resolves when a handler that was running is done, and its cursor kept. A handler must not wait for that. */
  close(): Promise<void>;
}

/** What calls have in common. */
export interface CallOptions {
  /** Gives the call up. */
  signal?: AbortSignal;
}

/** Which part of the history to read. */
export interface HistoryQuery extends CallOptions {
  /** 1 to 500, by default 50. */
  limit?: number;
  /** Newest first (`desc`, the default) or oldest first. */
  order?: "asc" | "desc";
  /** Only what is before this id. */
  before?: string;
  /** Only what is after this id. */
  after?: string;
  /** Topics besides the user's own notifications and everyone's. */
  topics?: readonly string[];
  /** Only what is in this state. */
  state?: Mark | "unseen";
}

/** Options of sending. */
export interface SendOptions extends CallOptions {
  /** Makes repeating safe for 24 hours: the same key is answered the same, and sent once. */
  idempotencyKey?: string;
}

/**
 * Tidings as one user of one app sees it. `Events` maps event names to the type of their data.
 * Making one does nothing; it can be made anywhere and any number of times.
 */
export class TidingsClient<Events extends object = Record<string, unknown>> {
  readonly #http: Http;
  readonly #app: string;
  readonly #user: string;
  readonly #setting: Setting;

  constructor(options: ClientOptions) {
    const { app, user, storage = browserStorage(), share = true, parse = JSON.parse, info = console.info } = options;
    for (const name of [app, user]) {
      // An address cannot hold these: it would be shortened to another one.
      if (/^\.{0,2}$/.test(name)) throw new TypeError(`An app and a user need a name, and "${name}" is none.`);
    }
    this.#app = app;
    this.#user = user;
    this.#http = new Http(options);
    const address = this.#http.address("subscribe", app, user);
    this.#setting = { http: this.#http, address, storage, share, parse, info };
  }

  /**
   * Calls handlers with what comes, one after the other. A handler that throws or rejects ends the
   * subscription with its cursor before that event, because skipping is the application's decision.
   */
  subscribe(handlers: Handlers<Events>, options: SubscribeOptions = {}): Subscription {
    const stop = new AbortController();
    const abort = () => stop.abort();
    options.signal?.addEventListener("abort", abort);
    if (options.signal?.aborted) abort();
    let connection: ConnectionState = "connecting";
    const onConnection: SubscribeOptions["onConnection"] = (state, problem) => {
      connection = state;
      options.onConnection?.(state, problem);
    };
    const run = async () => {
      try {
        const all = this.events({ ...options, signal: stop.signal, onConnection });
        for await (const event of all) await dispatch(handlers, event);
      } catch (error) {
        if (!handlers.error) throw error;
        handlers.error(error);
      } finally {
        options.signal?.removeEventListener("abort", abort);
      }
    };
    const done = run();
    return {
      get connection() {
        return connection;
      },
      close: () => (abort(), done),
    };
  }

  /**
   * The same as an async iterator. It begins with the first `next()`, and an event counts as handled
   * when the one after it is asked for: leaving the loop within an event makes it come again.
   */
  events(options: SubscribeOptions = {}): AsyncGenerator<TidingsEvent<Events>, void, undefined> {
    return events<Events>(this.#setting, options);
  }

  /** A page of past notifications, newest first. Its `cursor` is where to subscribe from. */
  history({ signal, ...query }: HistoryQuery = {}): Promise<HistoryPage<Events>> {
    return this.#call(["history", this.#app, this.#user], { query, signal });
  }

  /** One notification. */
  notification(id: string, { signal }: CallOptions = {}): Promise<StoredNotification<Events>> {
    return this.#call(["notification", this.#app, id], { signal });
  }

  /** The badge's numbers, without loading a list. */
  counts({ signal, ...query }: { topics?: readonly string[] } & CallOptions = {}): Promise<Counts> {
    return this.#call(["counts", this.#app, this.#user], { query, signal });
  }

  /** Marks notifications, for all of the user's devices. Idempotent; comes back as a `state` event. */
  mark(state: Mark, which: Which, { signal }: CallOptions = {}): Promise<Marked> {
    return this.#call(["state", this.#app, this.#user], { method: "POST", body: { ...which, state }, signal });
  }

  /** Takes a notification back, from everybody. */
  async withdraw(id: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#http.send(this.#http.address("withdraw", this.#app, id), { method: "POST", signal });
  }

  /** Sends, now or with `deliver_at` later. Resolves when it is stored durably. */
  send(to: Recipient, notification: NewNotification<Events> & { deliver_at: string }, options?: SendOptions): Promise<Scheduled>;
  send(to: { users: readonly string[] }, notification: NewNotification<Events>, options?: SendOptions): Promise<SentToMany>;
  send(to: Audience, notification: NewNotification<Events>, options?: SendOptions): Promise<Sent>;
  send(to: Recipient, notification: NewNotification<Events>, { signal, idempotencyKey }: SendOptions = {}): Promise<unknown> {
    return this.#call(["send", this.#app], {
      method: "POST",
      body: { ...notification, to },
      headers: { "idempotency-key": idempotencyKey },
      signal,
    });
  }

  async #call<Answer>(path: string[], request: Request): Promise<Answer> {
    const response = await this.#http.send(this.#http.address(...path), request);
    return this.#setting.parse(await response.text()) as Answer;
  }
}

async function dispatch<Events extends object>(handlers: Handlers<Events>, event: TidingsEvent<Events>): Promise<void> {
  if (event.type !== "notification") {
    await (handlers[event.type] as ((event: unknown) => unknown) | undefined)?.(event);
    return;
  }
  await handlers.notification?.(event);
  const byName = handlers.on?.[event.event as keyof Events & string] as ((event: unknown) => unknown) | undefined;
  await byName?.(event);
}
