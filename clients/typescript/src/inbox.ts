// What state entries mean for a list that an application keeps.

import type { Audience, Marks, StateChange } from "./notification.js";

/**
 * A list as it is after a state change. Idempotent, so own changes may be applied at once and again
 * when they come back as an entry; the very same list if nothing changed. A replaced notification
 * goes, the one in its place comes as a notification.
 */
export function applyState<Item extends { id: string; audience?: Audience } & Partial<Marks>>(
  items: readonly Item[],
  change: StateChange,
): readonly Item[] {
  const marks = MARKS[change.state];
  const after = items.flatMap((item) => {
    if (!concerns(change, item)) return [item];
    if (!marks) return [];
    const same = Object.entries(marks).every(([mark, value]) => Boolean(item[mark as keyof Marks]) === value);
    return [same ? item : { ...item, ...marks }];
  });
  return after.length === items.length && after.every((item, index) => item === items[index]) ? items : after;
}

const MARKS: Partial<Record<StateChange["state"], Partial<Marks>>> = {
  seen: { seen: true },
  read: { seen: true, read: true },
  unread: { read: false },
  archived: { archived: true },
  unarchived: { archived: false },
};

function concerns({ ids, up_to, topics = [] }: StateChange, { id, audience }: { id: string; audience?: Audience }): boolean {
  if (ids) return ids.includes(id);
  const included = typeof audience !== "object" || !("topic" in audience) || topics.includes(audience.topic);
  return up_to !== undefined && id <= up_to && included;
}
