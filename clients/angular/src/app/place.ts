// Whose notifications a page shows is in its address: a reload shows the same, and a link leads there.

import type { ConnectOptions } from "../tidings";

/** Server, app, user and topics, as a person types them. */
export interface Place {
  url: string;
  app: string;
  user: string;
  topics: string;
}

/** Where a server is that was just started. */
export const LOCAL = "http://127.0.0.1:8080";

/** What the address of the page says. */
export function placeOfPage(): Place {
  const query = new URLSearchParams(location.search);
  const get = (name: keyof Place) => query.get(name) ?? "";
  return { url: get("url") || LOCAL, app: get("app"), user: get("user"), topics: get("topics") };
}

/** Puts a place into the page's address. */
export function rememberPlace(place: Place): void {
  const query = new URLSearchParams(Object.entries(place).filter(([, value]) => value));
  history.replaceState(null, "", `?${query}`);
}

/** What the service needs of a place. */
export function optionsOf({ url, app, user, topics }: Place): ConnectOptions {
  const names = topics.split(",").map((topic) => topic.trim());
  return { url, app, user, topics: names.filter(Boolean) };
}
