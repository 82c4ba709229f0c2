// Everything that can answer an EventSource, and what the browser's does then.

import type { ServerResponse } from "node:http";
import type { BrowserTab } from "../../../typescript/build/harness/browser.js";
import { Stub, type Answer } from "../../../typescript/build/harness/stub.js";
import { within } from "../../../typescript/build/harness/wait.js";

const RETRY = 700; // ms; what the answers ask for, if they do
const DEFAULT = 3000; // ms; Chromium's own
const CORS = { "access-control-allow-origin": "*" };
const STREAM = { ...CORS, "content-type": "text/event-stream" };

const status =
  (status: number, headers = {}): Answer =>
  (answer) =>
    void answer.writeHead(status, { ...CORS, ...headers }).end();
const text =
  (text: string, then = (answer: ServerResponse) => void answer.end()): Answer =>
  (answer) => {
    answer.writeHead(200, STREAM).write(text);
    then(answer);
  };
const drop: Answer = ({ socket }) => void socket?.destroy();
const retry = `retry: ${RETRY}\n\n`;
const notification = `${retry}id: 01\ndata: 1\n\n`;

/** Each is answered so, and the last answer again and again. */
const ANSWERS = new Map<string, Answer[]>([
  ["200, empty, that ends", [status(200, STREAM)]],
  ["200 with only `retry:`", [text(retry)]],
  ["200 with `retry:` and `tidings.goodbye`", [text(`retry: ${RETRY}\nevent: tidings.goodbye\ndata: {}\n\n`)]],
  ["a stream that is cut after a notification", [text(notification, ({ socket }) => void setTimeout(() => socket?.destroy(), 100))]],
  ["the connection is dropped before an answer", [drop]],
  ["the same, after a stream with `retry:`", [text(retry), drop]],
  ["the connection is refused", []],
  ["200 that is not `text/event-stream`", [status(200, { "content-type": "text/html" })]],
  ["204", [status(204)]],
  ["400", [status(400)]],
  ["401", [status(401, { "www-authenticate": "Bearer" })]],
  ["429 with `Retry-After`", [status(429, { "retry-after": "1" })]],
  ["500", [status(500)]],
  ["502", [status(502)]],
  ["503 with `Retry-After`", [status(503, { "retry-after": "1" })]],
  ["503, after a stream with `retry:`", [text(retry), status(503)]],
  ["200 that CORS does not allow", [(answer) => void answer.writeHead(200, { "content-type": "text/event-stream" }).end(retry)]],
]);

/** What a page saw: an event, and how the EventSource stood. */
type Seen = { name: string; readyState: number; at: number };

export class Answers {
  /** The rows of a table in Markdown: what happens for each answer. */
  static async observe(page: BrowserTab["page"]): Promise<string> {
    const stubs = new Map<string, Stub>();
    for (const [name, answers] of ANSWERS) stubs.set(name, await Stub.start(...answers));
    const urls = [...stubs].map(([name, { url }]) => [name, url] as const);
    for (const [name, stub] of stubs) if (ANSWERS.get(name)?.length === 0) stub.stop(); // its port refuses now
    // Those that come back do so three times; the others have had the time for it.
    const seen = await within(page.evaluate(watch, urls), "what EventSource does").finally(() => {
      for (const stub of stubs.values()) stub.stop();
    });
    const rows = seen.map(([name, events]) => {
      const closed = events.at(-1)?.readyState === 2;
      const requests = stubs.get(name)?.requests.all.length;
      const expected = ANSWERS.get(name)?.length;
      if (closed && requests !== expected) throw new Error(`${name}: closed, and yet ${requests} requests instead of ${expected}`);
      return `| ${name} | ${names(events)} | ${closed ? "2, closed" : "0, connecting"} | ${closed ? "never" : pause(events)} |\n`;
    });
    return rows.join("");
  }
}

/** In the page: every event of each EventSource, until each is closed or has failed three times. */
function watch(urls: (readonly [string, string])[]): Promise<[string, Seen[]][]> {
  return new Promise((resolve) => {
    const all = urls.map(([name, url]) => ({ name, source: new EventSource(url), events: [] as Seen[] }));
    const done = ({ source, events }: (typeof all)[number]) =>
      source.readyState === 2 || events.filter(({ name }) => name === "error").length > 3;
    for (const { source, events } of all) {
      for (const name of ["open", "message", "tidings.goodbye", "error"]) {
        source.addEventListener(name, () => {
          events.push({ name, readyState: source.readyState, at: performance.now() });
          if (!all.every(done)) return;
          for (const { source } of all) source.close();
          resolve(all.map(({ name, events }) => [name, events]));
        });
      }
    }
  });
}

/** The events of the last attempt, up to its error. */
function names(events: Seen[]): string {
  const errors = events.flatMap(({ name }, index) => (name === "error" ? [index] : []));
  const last = events.slice((errors.at(-2) ?? -1) + 1, (errors.at(-1) ?? 0) + 1);
  return last.map(({ name }) => `\`${name}\``).join(", ");
}

/** From an error to whatever comes next; the shortest of three, as machines may be busy. */
function pause(events: Seen[]): string {
  const all = events.flatMap(({ name, at }, index) => (name === "error" && events[index + 1] ? [(events[index + 1]?.at ?? 0) - at] : []));
  const shortest = Math.min(...all);
  // Never earlier; but a busy machine may be late.
  const is = (ms: number, less: number) => shortest > ms * 0.95 && shortest < less * 0.95;
  if (is(RETRY, DEFAULT)) return "after what `retry:` said";
  return is(DEFAULT, 3 * DEFAULT) ? "after 3 s" : `after ${Math.round(shortest)} ms`;
}
