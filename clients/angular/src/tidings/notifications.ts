// The service: one user's notifications as signals. It loads the history and follows the stream from
// exactly where that ends; order, doubles and reconnecting are the package's, the list's are items.ts's.

import { DestroyRef, inject, Injectable, signal, type Signal } from "@angular/core";
import {
  applyState,
  TidingsClient,
  TidingsError,
  type Audience,
  type ClientOptions,
  type ConnectionState,
  type Counts,
  type Gap,
  type Mark,
  type Notification,
  type NewNotification,
  type Problem,
  type SendOptions,
  type Sent,
  type StateChange,
} from "@tidings/client";
import { Subject, type Observable } from "rxjs";
import { fresh, merged, type Item } from "./items";
import { Retry } from "./retry";

/** Whose notifications, where from, and which. */
export interface ConnectOptions extends ClientOptions {
  /** Topics besides the user's own notifications and everyone's. */
  topics?: readonly string[];
  /** How many a page of history has, by default 30. */
  pageSize?: number;
}

/** What belongs to one `connect`. Late answers of an earlier one are known by its signal. */
interface Session {
  options: ConnectOptions;
  client: TidingsClient;
  topics: readonly string[];
  limit: number;
  signal: AbortSignal;
  /** Ends the subscription, so that another can take its place. */
  subscription?: AbortController;
  /** How the subscription stands, whatever else is being asked for. */
  stands?: [ConnectionState, Problem?];
}

/**
 * A user's notifications. Provided in the root, or anywhere to have one for each place:
 * `connect`, and show what the signals say.
 */
@Injectable({ providedIn: "root" })
export class Notifications {
  readonly #options = signal<ConnectOptions | undefined>(undefined);
  readonly #items = signal<readonly Item[]>([]);
  readonly #loaded = signal(false);
  readonly #next = signal<string | null>(null);
  readonly #loadingMore = signal(false);
  readonly #counts = signal<Counts | undefined>(undefined);
  readonly #connection = signal<ConnectionState>("closed");
  readonly #problem = signal<Problem | undefined>(undefined);
  readonly #gap = signal<Gap | undefined>(undefined);
  readonly #arrivals = new Subject<Notification>();
  readonly #retry = new Retry();
  #session: Session | undefined;
  #end = new AbortController();
  #changes: StateChange[] = []; // that came while a page was being loaded
  #counting = false;
  #countAgain = false;

  /** Who is connected, if anybody. */
  readonly options: Signal<ConnectOptions | undefined> = this.#options.asReadonly();
  /** The notifications loaded so far, newest first, archived ones too; they change as things happen. */
  readonly items: Signal<readonly Item[]> = this.#items.asReadonly();
  /** Whether the first page is there; until then an empty list means nothing. */
  readonly loaded: Signal<boolean> = this.#loaded.asReadonly();
  /** The `next` of the last page: not `null` if there are older ones. */
  readonly next: Signal<string | null> = this.#next.asReadonly();
  /** Whether older ones are being loaded. */
  readonly loadingMore: Signal<boolean> = this.#loadingMore.asReadonly();
  /** The badge's numbers. */
  readonly counts: Signal<Counts | undefined> = this.#counts.asReadonly();
  /** How the connection stands; `CONNECTION_WORDS` has words for it. */
  readonly connection: Signal<ConnectionState> = this.#connection.asReadonly();
  /** Why it is not live, if that is known; `problemWords` has words for it. */
  readonly problem: Signal<Problem | undefined> = this.#problem.asReadonly();
  /** Something may be missing, until `dismissGap`; `GAP_WORDS` has words for it. */
  readonly gap: Signal<Gap | undefined> = this.#gap.asReadonly();
  /** Each notification that comes while connected, after it is in `items`. */
  readonly arrivals: Observable<Notification> = this.#arrivals.asObservable();

  constructor() {
    inject(DestroyRef).onDestroy(() => this.disconnect());
  }

  /** Shows this user's notifications in place of whoever's were shown. Throws for names that are none. */
  connect(options: ConnectOptions): void {
    const client = new TidingsClient(options);
    this.disconnect();
    this.#end = new AbortController();
    const { topics = [], pageSize: limit = 30 } = options;
    const session: Session = { options, client, topics, limit, signal: this.#end.signal };
    this.#session = session;
    this.#options.set(options);
    this.#connection.set("connecting");
    void this.#start(session);
  }

  /** Ends it, and forgets what was shown. */
  disconnect(): void {
    this.#end.abort();
    this.#session = undefined;
    this.#options.set(undefined);
    this.#items.set([]);
    this.#loaded.set(false);
    this.#next.set(null);
    this.#loadingMore.set(false);
    this.#counts.set(undefined);
    this.#connection.set("closed");
    this.#problem.set(undefined);
    this.#gap.set(undefined);
  }

  /** Does not wait any longer: connects now. */
  retry(): void {
    this.#retry.now();
    const session = this.#session;
    if (!session || this.#connection() === "live") return;
    // From the cursor that the package kept.
    if (session.subscription) this.#subscribe(session, null);
    else if (this.#connection() === "failed") void this.#start(session);
  }

  /** Adds the page after the oldest in `items`, if there is one. */
  async loadMore(): Promise<void> {
    const session = this.#session;
    const before = this.#next();
    if (!session || before === null || this.#loadingMore()) return;
    const { client, topics, limit, signal } = session;
    this.#loadingMore.set(true);
    this.#changes = [];
    try {
      const page = await client.history({ before, limit, topics, signal });
      // What was marked meanwhile may be news to this page.
      const notifications = this.#changes.reduce(applyState<Item>, page.notifications);
      if (signal.aborted || this.#next() !== before) return;
      this.#items.update((items) => merged(items, notifications));
      this.#next.set(page.next);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      if (!signal.aborted) this.#loadingMore.set(false);
    }
  }

  /** Marks some, on all of the user's devices. */
  mark(state: Mark, ids: readonly string[]): Promise<void> {
    return this.#mark({ id: "", ids: [...ids], state });
  }

  /** Marks all up to the newest that is shown: what comes meanwhile is not read by it. */
  async markAll(state: "seen" | "read"): Promise<void> {
    const newest = this.#items()[0];
    if (newest && this.#session) await this.#mark({ id: "", up_to: newest.id, topics: [...this.#session.topics], state });
  }

  /** Sends, to this user if nobody else is named. */
  send(notification: NewNotification, to?: Audience, options?: SendOptions): Promise<Sent> {
    const { client, options: who } = this.#connected();
    return client.send(to ?? { user: who.user }, notification, options);
  }

  /** The person has read that something may be missing. */
  dismissGap(): void {
    this.#gap.set(undefined);
  }

  async #start(session: Session): Promise<void> {
    const cursor = await this.#reload(session).catch((error: unknown) => this.#failed(session, error));
    if (cursor !== undefined) this.#subscribe(session, cursor);
  }

  /** The newest page in place of what is shown; its cursor. */
  async #reload({ client, topics, limit, signal }: Session): Promise<string | null> {
    const ask = () => client.history({ limit, topics, signal });
    const { notifications, next, cursor } = await this.#retry.until(ask, signal, (problem) => {
      this.#stands(globalThis.navigator?.onLine === false ? "offline" : "reconnecting", problem);
    });
    signal.throwIfAborted();
    this.#items.set(notifications);
    this.#next.set(next);
    this.#loaded.set(true);
    void this.#count();
    return cursor;
  }

  #subscribe(session: Session, from: string | null): void {
    session.subscription?.abort();
    const end = (session.subscription = new AbortController());
    const signal = AbortSignal.any([end.signal, session.signal]);
    const onConnection = (...stands: [ConnectionState, Problem?]) => {
      if (!signal.aborted) this.#stands(...(session.stands = stands));
    };
    session.client.subscribe(
      {
        notification: (notification) => this.#arrived(notification),
        state: (change) => this.#changed(change),
        gap: (gap) => this.#missing(session, gap),
        error: (error) => this.#failed(session, error),
      },
      { from, topics: session.topics, signal, onConnection },
    );
  }

  #stands(state: ConnectionState, problem?: Problem): void {
    this.#connection.set(state);
    this.#problem.set(problem);
    if (state === "live") void this.#count();
  }

  #arrived(notification: Notification): void {
    this.#items.update((items) => merged(items, [fresh(notification)]));
    this.#arrivals.next(notification);
    void this.#count();
  }

  #changed(change: StateChange): void {
    if (this.#loadingMore()) this.#changes.push(change);
    this.#items.update((items) => applyState(items, change));
    void this.#count();
  }

  async #missing(session: Session, gap: Gap): Promise<void> {
    await this.#reload(session);
    this.#gap.set(gap);
    if (session.stands) this.#stands(...session.stands);
  }

  #failed(session: Session, error: unknown): undefined {
    if (session.signal.aborted) return;
    if (!(error instanceof TidingsError)) throw error;
    this.#stands("failed", error.problem);
  }

  async #mark(change: StateChange & { state: Mark }): Promise<void> {
    const { client, topics, signal } = this.#connected();
    const { ids, up_to, state } = change;
    const counts = await client.mark(state, up_to === undefined ? { ids: ids ?? [], topics } : { up_to, topics }, { signal });
    if (signal.aborted) return;
    this.#changed(change);
    this.#counts.set(counts);
  }

  /** One question at a time, and one more if something happened meanwhile. */
  async #count(): Promise<void> {
    const session = this.#session;
    if (!session) return;
    this.#countAgain = this.#counting;
    if (this.#counting) return;
    this.#counting = true;
    // If it cannot be answered now, it is asked again once live.
    const counts = await session.client.counts({ topics: session.topics, signal: session.signal }).catch(() => undefined);
    this.#counting = false;
    if (counts && !session.signal.aborted) this.#counts.set(counts);
    if (this.#countAgain) void this.#count();
  }

  #connected(): Session {
    if (!this.#session) throw new Error("Nobody is connected: call connect first.");
    return this.#session;
  }
}
