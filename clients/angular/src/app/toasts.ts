// What appears for a while in a corner: what arrives, and what went wrong. Arrivals are in the list
// too, so they may go by themselves; what went wrong stays until it is dismissed.

import { inject, Injectable, signal } from "@angular/core";
import { TidingsError, type Notification } from "@tidings/client";
import { problemWords } from "../tidings";
import { Announcer } from "./announcer";
import { headed, summary } from "./describe";

/** One of them. */
export interface Toast {
  /** Of this page. */
  key: number;
  /** A headline. */
  title: string;
  /** Who it is from. */
  from?: string | undefined;
  /** More. */
  text?: string | undefined;
  /** The notification that arrived; without it, something went wrong. */
  id?: string;
}

const LONGEST = 8_000; // ms that one is shown
const MOST = 3; // that are shown at once
const TOGETHER = 250; // ms within which arrivals are announced as one

/** Those that are shown. */
@Injectable({ providedIn: "root" })
export class Toasts {
  readonly #announcer = inject(Announcer);
  readonly #shown = signal<readonly Toast[]>([]);
  readonly #others = signal(0);
  #keys = 0;
  #arrived: Notification[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #held = false;

  /** The newest, the last one last. */
  readonly shown = this.#shown.asReadonly();
  /** How many arrivals there were besides those that are shown. */
  readonly others = this.#others.asReadonly();

  /** A notification came. */
  arrived(notification: Notification): void {
    const { heading, from, text, facts } = headed(notification);
    const more = text ?? facts.map((fact) => fact.join(": ")).join(", ");
    this.#add({ title: heading, from, text: more, id: notification.id });
    if (this.#arrived.push(notification) === 1) setTimeout(() => this.#announce(), TOGETHER);
  }

  /** Something that the person asked for was refused, or did not get through. */
  failed(title: string, error: unknown): void {
    this.wrong(title, error instanceof TidingsError ? reason(error) : String(error));
  }

  /** Something is wrong, in words of the caller's. */
  wrong(title: string, text: string): void {
    this.#add({ title, text });
    this.#announcer.say(`${title}. ${text}`);
  }

  /** Takes one away. */
  dismiss(key: number): void {
    this.#shown.update((shown) => shown.filter((toast) => toast.key !== key));
    if (this.#shown().length === 0) this.#others.set(0);
  }

  /** Takes all away, also what was to be said of them. */
  clear(): void {
    this.#arrived = [];
    this.#shown.set([]);
    this.#others.set(0);
    this.hold(false);
  }

  /** While somebody points at one or has the focus in it, none goes. */
  hold(held: boolean): void {
    this.#held = held;
    this.#schedule();
  }

  #add(toast: Omit<Toast, "key">): void {
    const all = [...this.#shown(), { ...toast, key: ++this.#keys }];
    // Of more than there is room for, the oldest arrivals are only counted.
    while (all.length > MOST) {
      const oldest = all.findIndex(({ id }) => id);
      if (oldest < 0) break;
      all.splice(oldest, 1);
      this.#others.update((others) => others + 1);
    }
    this.#shown.set(all);
    this.#schedule();
  }

  /** All go together, some time after the last: a row of them that shrinks one by one is unrest. */
  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#held) return;
    this.#timer = setTimeout(() => {
      this.#shown.update((shown) => shown.filter(({ id }) => !id));
      this.#others.set(0);
    }, LONGEST);
  }

  #announce(): void {
    const [first, ...more] = this.#arrived;
    this.#arrived = [];
    if (first) this.#announcer.say(more.length ? `${more.length + 1} new notifications` : `New notification: ${summary(first)}`);
  }
}

/** Unlike a connection, what a person asks for is not asked for again and again. */
function reason({ problem, slug }: TidingsError): string {
  if (slug === "unreachable") return "The server cannot be reached. Try again when the connection is back.";
  const { title, detail, setting = "" } = problemWords(problem);
  return `${title}. ${detail} ${setting}`.trim();
}
