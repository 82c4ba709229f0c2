// Who may lead. With Web Locks one subscription of all tabs; without, one of each page.

/** The part of Web Locks that is used. */
export interface Locks {
  request(name: string, options: { signal?: AbortSignal; steal?: boolean }, hold: () => Promise<void>): Promise<unknown>;
}

const queues = /* @__PURE__ */ new Map<string, Promise<void>>();

// Tells pages apart where they must not hear each other.
const page = /* @__PURE__ */ Math.random().toString(36).slice(2);

/** Locks among the subscriptions of one page. None of them can freeze alone, so nothing is stolen. */
export const pageLocks: Locks = {
  request(name, { signal }, hold) {
    const turn = (queues.get(name) ?? Promise.resolve()).then(() => (signal?.aborted ? undefined : hold()));
    queues.set(name, turn);
    return turn;
  },
};

let told = false;

/** The locks to use, and the name under which those who share a connection meet. */
export function locksFor(name: string, share: boolean, info: (message: string) => void): { locks: Locks; name: string } {
  const locks = globalThis.navigator?.locks;
  if (share && locks) return { locks, name };
  if (share && globalThis.document && !told) {
    told = true;
    info("Tidings: Web Locks are missing (pages need https for them), so each tab has a connection of its own.");
  }
  return { locks: pageLocks, name: `${name}#${page}` };
}
