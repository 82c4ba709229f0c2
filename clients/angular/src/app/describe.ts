// What a notification says, whatever its sender put into it: the usual members as title, text and
// name, and the others as facts.

import type { Notification } from "@tidings/client";

/** A notification for people. */
export interface Described {
  /** Who it is from. */
  from?: string;
  /** A headline. */
  title?: string;
  /** What it says. */
  text?: string;
  /** Whatever else it has. */
  facts: [name: string, value: string][];
}

/** The same with a headline always, and nothing said twice. */
export interface Headed {
  /** The title; of those that have none the name, and of those the text if it is short enough. */
  heading: string;
  /** Who it is from, unless that is the heading. */
  from?: string | undefined;
  /** What it says, unless that is the heading. */
  text?: string | undefined;
  /** Whatever else it has. */
  facts: Described["facts"];
}

const LONGEST = 120; // characters of a line

const NAMES: Record<"from" | "title" | "text", readonly string[]> = {
  from: ["from", "author", "sender"],
  title: ["title", "subject"],
  text: ["text", "message", "body"],
};

/** Finds out. */
export function describe({ event, data }: Pick<Notification, "event" | "data">): Described {
  const described: Described = { facts: [] };
  if (event) described.title = humanized(event);
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    if (data !== null || !event) described.text = shown(data);
    return described;
  }
  for (const [name, value] of Object.entries(data)) {
    const kind = (Object.keys(NAMES) as (keyof typeof NAMES)[]).find((kind) => NAMES[kind].includes(name));
    if (kind && typeof value === "string" && value) described[kind] = value;
    else described.facts.push([humanized(name), shown(value)]);
  }
  return described;
}

/** For a list or a toast. */
export function headed(notification: Pick<Notification, "event" | "data">): Headed {
  const { from, title, text, facts } = describe(notification);
  const short = text === undefined || text.length <= LONGEST ? summary(notification) : "Message";
  const heading = title ?? from ?? short;
  return { heading, from: title ? from : undefined, text: text === heading ? undefined : text, facts };
}

/** In one line, at most so long, for those who listen. */
export function summary(notification: Pick<Notification, "event" | "data">, longest = LONGEST): string {
  const { from, title, text, facts } = describe(notification);
  const said = [from, title, text].filter(Boolean);
  const line = (said.length ? said : facts.flat()).join(": ");
  return line.length > longest ? `${[...line].slice(0, longest - 1).join("")}…` : line || "Empty";
}

/** `order.shipped` → `Order shipped` */
function humanized(name: string): string {
  const words = name.replace(/[._:-]+/g, " ").trim() || name;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
