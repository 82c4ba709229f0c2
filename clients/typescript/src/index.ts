// Everything that is public.

export { TidingsClient } from "./client.js";
export type { CallOptions, ClientOptions, Handlers, HistoryQuery, SendOptions, Subscription } from "./client.js";
export type { ConnectionState } from "./connection.js";
export { browserStorage, memoryStorage } from "./cursor.js";
export type { CursorStorage } from "./cursor.js";
export type { SubscribeOptions } from "./events.js";
export type { HttpOptions, TokenRequest } from "./http.js";
export { applyState } from "./inbox.js";
export type * from "./notification.js";
export { TidingsError } from "./problem.js";
export type { Problem } from "./problem.js";
