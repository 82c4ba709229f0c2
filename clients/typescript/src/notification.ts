// What travels: the objects of the server's contract, member for member and named as there, so
// that docs/protocol.md describes them too. Nothing here is code that runs.

/** Whom a notification is for. */
export type Audience = { user: string } | { topic: string } | "everyone";

/** A notification whose event name and data are known. */
export interface NotificationOf<Name extends string | null, Data> {
  /** ULID: increases in the order in which notifications become visible, and is a cursor too. */
  id: string;
  /** The sender's event name, `null` when there is none. */
  event: Name;
  /** What was sent. */
  data: Data;
  /** Whom it is for. */
  audience: Audience;
  /** When it was stored, RFC 3339. */
  created_at: string;
}

/**
 * A notification. `Events` maps event names to the type of their data, so `switch (n.event)`
 * narrows `n.data`. The package does not check data: it is what the application's senders send.
 */
export type Notification<Events extends object = Record<string, unknown>> =
  | { [Name in keyof Events & string]: NotificationOf<Name, Events[Name]> }[keyof Events & string]
  | NotificationOf<null, unknown>;

/** A notification that was looked up. */
export type StoredNotification<Events extends object = Record<string, unknown>> = Notification<Events> & {
  /** When it stops being shown, `null` for never. */
  expires_at: string | null;
};

/** What a person did to a notification. */
export interface Marks {
  /** It was in a list that the person looked at. */
  seen: boolean;
  /** It was read. */
  read: boolean;
  /** It was put away. */
  archived: boolean;
}

/** A page of history. */
export interface HistoryPage<Events extends object = Record<string, unknown>> {
  /** The notifications, in the order asked for, and what the user did to them. */
  notifications: (StoredNotification<Events> & Marks)[];
  /** Give it as `before` (desc) or `after` (asc) for the next page; `null` on the last one. */
  next: string | null;
  /** Subscribe from it to go on exactly where this page was read; `null` with `before`. */
  cursor: string | null;
}

/** What a person did, or undid, to notifications. Read implies seen; archived is not counted. */
export type Mark = "seen" | "read" | "unread" | "archived" | "unarchived";

/** Which notifications to mark: up to 1,000, or all up to one. */
export type Which = (
  | {
      /** Their ids. */
      ids: readonly string[];
    }
  | {
      /** The last one's id. */
      up_to: string;
    }
) & {
  /** Topics that `up_to` reaches, and that the answer counts, besides the user's own and everyone's. */
  topics?: readonly string[];
};

/** The badge's numbers. */
export interface Counts {
  /** How many are neither read nor archived. */
  unread: number;
  /** How many are neither seen nor archived. */
  unseen: number;
  /** The position that the numbers are of. */
  cursor: string;
}

/** The answer to marking. */
export interface Marked extends Counts {
  /** How many notifications changed; 0 when they were marked so before. */
  changed: number;
}

/** That notifications were marked, withdrawn or replaced, here or anywhere. Idempotent. */
export interface StateChange {
  /** The entry's own id, in one sequence with the notifications'. */
  id: string;
  /** Which ones, unless there is `up_to`. */
  ids?: string[];
  /** All up to this one, unless there is `ids`. */
  up_to?: string;
  /** With `up_to`: the topics included, besides the user's own and everyone's. */
  topics?: string[];
  /** What they are now. */
  state: Mark | "withdrawn" | "replaced";
  /** With `replaced`: the new notification's id. */
  by?: string;
}

/** Notifications *may* be missing in a range: load the history again. */
export interface Gap {
  /** The last position known before it; `null` when the cursor was not one. */
  after: string | null;
  /** Where the stream goes on, which can be lower than `after`. */
  resumes_after: string;
  /** Why. */
  reason: "expired" | "ahead" | "restored" | "bad-cursor";
}

/** The server ended the stream on purpose. The package connects again by itself. */
export interface Goodbye {
  /** Why. */
  reason: "shutdown" | "overloaded" | "max-age" | "slow";
}

/** What a subscription yields, in order. */
export type TidingsEvent<Events extends object = Record<string, unknown>> =
  | ({ type: "notification" } & Notification<Events>)
  | ({ type: "state" } & StateChange)
  | ({ type: "gap" } & Gap)
  | ({ type: "goodbye" } & Goodbye);

/** What to send. Ids, times and delivery are the server's. */
export type NewNotification<Events extends object = Record<string, unknown>> = (
  | { [Name in keyof Events & string]: { event: Name; data: Events[Name] } }[keyof Events & string]
  | { event?: never; data: unknown }
) & {
  /** Whole seconds from delivery after which it is no longer shown. */
  expires_in?: number;
  /** A key of 1 to 128 characters: takes the place of the audience's earlier one with this key. */
  replaces?: string;
  /** RFC 3339 with offset, up to 30 days ahead. */
  deliver_at?: string;
};

/** Whom to send to. */
export type Recipient = Audience | { users: readonly string[] };

/** The answer to sending: it is stored durably. */
export interface Sent {
  /** The notification's id. */
  id: string;
  /** When it was stored. */
  created_at: string;
}

/** The answer to sending to several users: one notification each, in the order given. */
export interface SentToMany {
  /** The notifications' ids. */
  ids: string[];
  /** When they were stored. */
  created_at: string;
}

/** The answer to sending with `deliver_at` in the future. */
export interface Scheduled {
  /** The schedule's id. */
  schedule_id: string;
  /** When it will be sent. */
  deliver_at: string;
}
