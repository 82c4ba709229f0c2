// The list that a person sees, newest first and each notification once, whether it came from the
// history, live, or both.

import type { Marks, Notification } from "@tidings/client";

/** A notification and what its user did to it. */
export type Item<Events extends object = Record<string, unknown>> = Notification<Events> & Marks;

/** One that just came: nobody has done anything to it yet. What somebody did follows on the stream. */
export function fresh<Events extends object>(notification: Notification<Events>): Item<Events> {
  return { ...notification, seen: false, read: false, archived: false };
}

/**
 * Both lists as one. Of two with the same id the one that was there stays: it has the marks that were
 * made since, and a notification itself never changes.
 */
export function merged<T extends { id: string }>(items: readonly T[], more: readonly T[]): readonly T[] {
  const known = new Set(items.map(({ id }) => id));
  const added = more.filter(({ id }) => !known.has(id));
  if (added.length === 0) return items;
  return [...items, ...added].sort((a, b) => (a.id < b.id ? 1 : -1));
}
