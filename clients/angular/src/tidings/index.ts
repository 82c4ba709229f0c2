// What an application imports.

export { Notifications, type ConnectOptions } from "./notifications";
export type { Item } from "./items";
export { CONNECTION_WORDS, GAP_WORDS, problemWords, type ProblemWords } from "./words";
