// "5 minutes ago", for all times of the page at once: one clock, which ticks once a minute.

import { DestroyRef, inject, Injectable, signal } from "@angular/core";

const UNITS: [unit: Intl.RelativeTimeFormatUnit, seconds: number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** Tells times as people do. */
@Injectable({ providedIn: "root" })
export class Age {
  readonly #now = signal(Date.now());
  // The page's language, like all its other words.
  readonly #relative = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
  readonly #absolute = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });

  constructor() {
    const timer = setInterval(() => this.#now.set(Date.now()), 60_000);
    inject(DestroyRef).onDestroy(() => clearInterval(timer));
  }

  /** `just now`, `5 minutes ago`, `yesterday`; what happened since the last tick is just now. */
  of(time: string): string {
    const seconds = (this.#now() - Date.parse(time)) / 1000;
    const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? [undefined, 1];
    return unit ? this.#relative.format(-Math.floor(seconds / size), unit) : "just now";
  }

  /** The exact time. */
  exact(time: string): string {
    return this.#absolute.format(new Date(time));
  }
}
