// Where a subscription stands, kept over reloads. A tab goes on from its own cursor, however far the
// other tabs are; a new tab goes on from the one that was kept last.

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

/** Keeps cursors as long as the page lives. */
export function memoryStorage(): CursorStorage {
  const kept = new Map<string, string>();
  return { get: (key) => kept.get(key), set: (key, value) => void kept.set(key, value) };
}

/**
 * Keeps cursors in `localStorage`, and each tab's own in `sessionStorage`, which a reload goes on
 * from; in memory where these are missing, full or forbidden.
 */
export function browserStorage(): CursorStorage {
  const memory = memoryStorage();
  const each = <T>(action: (storage: Storage) => T): T[] => {
    // Without a document this is Node, whose localStorage is something else.
    if (!globalThis.document) return [];
    return (["sessionStorage", "localStorage"] as const).flatMap((name) => {
      try {
        return [action(globalThis[name])];
      } catch {
        return [];
      }
    });
  };
  return {
    get: (key) => memory.get(key) ?? each((storage) => storage.getItem(key)).find(Boolean),
    set(key, value) {
      void memory.set(key, value);
      each((storage) => storage.setItem(key, value));
    },
  };
}
