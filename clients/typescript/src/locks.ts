// Who may lead. With Web Locks one subscription of all tabs; without, one of each page.

import { canBroadcast, PageChannel, type Channel } from "./channel.js";

/** How a lock is taken; the part of LockOptions that is used. */
export interface LockChoice {
  signal?: AbortSignal;
  steal?: boolean;
  mode?: "shared";
}

/** The part of Web Locks that is used. */
export interface Locks {
  request(name: string, options: LockChoice, hold: () => Promise<void>): Promise<unknown>;
}

const queues = /* @__PURE__ */ new Map<string, Promise<void>>();

/** Locks among the subscriptions of one page. None of them can freeze alone, so nothing is stolen. */
export const pageLocks: Locks = {
  request(name, { signal }, hold) {
    const turn = (queues.get(name) ?? Promise.resolve()).then(() => (signal?.aborted ? undefined : hold()));
    queues.set(name, turn);
    return turn;
  },
};

let told = false;

/** Where those who share a connection meet: in all tabs if they may and can, else in this page. */
export function meeting(share: boolean, info: (message: string) => void): { locks: Locks; channel: (name: string) => Channel } {
  const locks = globalThis.navigator?.locks;
  if (share && locks && canBroadcast()) return { locks, channel: (name) => new BroadcastChannel(name) };
  if (share && globalThis.document && !told) {
    told = true;
    const reason = locks ? "BroadcastChannel is forbidden here" : "Web Locks are missing (pages need https for them)";
    info(`Tidings: ${reason}, so each tab has a connection of its own.`);
  }
  return { locks: pageLocks, channel: (name) => new PageChannel(name) };
}
