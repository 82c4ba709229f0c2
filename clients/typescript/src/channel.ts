// How subscriptions hear each other: over all tabs of an origin, or within one page.

import type { Message } from "./messages.js";

/** The part of BroadcastChannel that is used. */
export interface Channel {
  onmessage: ((event: MessageEvent<Message>) => void) | null;
  postMessage(message: Message): void;
  close(): void;
}

/** Whether the browser has one over its tabs. Some forbid it where they keep nothing. */
export function canBroadcast(): boolean {
  try {
    new BroadcastChannel("tidings").close();
    return true;
  } catch {
    return false;
  }
}

const open = /* @__PURE__ */ new Map<string, Set<PageChannel>>();

/** A channel of this page alone. */
export class PageChannel implements Channel {
  onmessage: Channel["onmessage"] = null;
  readonly #all: Set<PageChannel>;

  constructor(name: string) {
    this.#all = open.get(name) ?? new Set();
    open.set(name, this.#all.add(this));
  }

  postMessage(data: Message): void {
    for (const other of this.#all) {
      // Later, as between tabs; and not to one that is closed by then.
      if (other !== this) queueMicrotask(() => this.#all.has(other) && other.onmessage?.({ data } as MessageEvent<Message>));
    }
  }

  close(): void {
    this.#all.delete(this);
  }
}
