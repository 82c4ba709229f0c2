// Where a subscription stands, kept over reloads. All tabs of an origin share what is stored: it is
// what this browser has handled, so it only moves forward, except at a gap, which sets it.

/** Keeps cursors. Anything with these two methods will do. */
export interface CursorStorage {
  /** What was last set, else `null`. */
  get(key: string): string | null | undefined | Promise<string | null | undefined>;
  /** Keeps a value. */
  set(key: string, value: string): void | Promise<void>;
}

/** The cursor of an empty feed. */
export const ZERO = "00000000000000000000000000";

// The server answers a cursor that is none with a gap, which is how a damaged store gets surfaced.
// It sorts before every id, so that the shared connection starts from it.
const DAMAGED = "-";

/** An id as the server prints it; a damaged one as something that the server will refuse. */
export function normalized(id: string): string {
  return /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/i.test(id) ? id.toUpperCase() : DAMAGED;
}

/** A subscription's cursor in a storage. */
export class Cursor {
  constructor(
    private readonly storage: CursorStorage,
    private readonly key: string,
  ) {}

  async load(): Promise<string | null> {
    const kept = await this.storage.get(this.key);
    return kept ? normalized(kept) : null;
  }

  async advance(id: string): Promise<void> {
    const kept = await this.load();
    if (kept === null || kept < id) await this.reset(id);
  }

  async reset(id: string): Promise<void> {
    await this.storage.set(this.key, id);
  }
}

/** Keeps cursors as long as the page lives. */
export function memoryStorage(): CursorStorage {
  const kept = new Map<string, string>();
  return { get: (key) => kept.get(key), set: (key, value) => void kept.set(key, value) };
}

/** Keeps cursors in `localStorage`; in memory where there is none, or it is full or forbidden. */
export function browserStorage(): CursorStorage {
  const memory = memoryStorage();
  const attempt = <T>(action: (storage: Storage) => T): T | undefined => {
    try {
      // Without a document this is Node, whose localStorage is something else.
      return globalThis.document && action(localStorage);
    } catch {
      return undefined;
    }
  };
  return {
    get: (key) => attempt((storage) => storage.getItem(key)) ?? memory.get(key),
    set(key, value) {
      memory.set(key, value);
      attempt((storage) => storage.setItem(key, value));
    },
  };
}
