// The service by itself, in Node, with a real server: what depends on the order in which answers come.

import "@angular/compiler";
import { createEnvironmentInjector, Injector, type EnvironmentInjector } from "@angular/core";
import { memoryStorage, TidingsError } from "@tidings/client";
import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { noServer, Server } from "../../typescript/test/harness/server";
import { Seen } from "../../typescript/test/harness/wait";
import { Notifications, type ConnectOptions } from "../src/tidings";

const skip = noServer;
let server: Server;
before(async () => {
  if (!skip) server = await Server.start();
});
after(() => server?.stop());

/** A fetch that keeps answers to some requests until told otherwise. */
class Held {
  readonly waiting = new Seen<string>();
  #which: RegExp | undefined;
  #release = () => {};
  #released = Promise.resolve();

  hold(which: RegExp): void {
    this.#which = which;
    this.#released = new Promise((resolve) => (this.#release = resolve));
  }

  release(): void {
    this.#which = undefined;
    this.#release();
  }

  readonly fetch: typeof fetch = async (input, init) => {
    const url = String(input);
    const answer = await fetch(input, init);
    if (!this.#which?.test(url)) return answer;
    this.waiting.push(url);
    await this.#released;
    return answer;
  };
}

let apps = 0;
/** The service, and what its signals were whenever something happened. */
function service(t: TestContext) {
  const app = `shop-${++apps}`;
  const held = new Held();
  const injector = createEnvironmentInjector([Notifications], Injector.NULL as EnvironmentInjector);
  const notifications = injector.get(Notifications);
  t.after(() => injector.destroy());
  const connect = (options: Partial<ConnectOptions> = {}) =>
    notifications.connect({ url: server.url, app, user: "ada", storage: memoryStorage(), fetch: held.fetch, pageSize: 2, ...options });
  /** Looks after each turn of the event loop: signals outside a page have nobody who tells. */
  const until = async (condition: () => boolean, what: string) => {
    const looked = new Seen<boolean>();
    const timer = setInterval(() => looked.push(condition()), 1);
    await looked.until((all) => all.at(-1) === true, what).catch(() => assert.fail(`${what}: not in time`));
    clearInterval(timer);
  };
  const live = () => until(() => notifications.connection() === "live", "live");
  const ids = () => notifications.items().map(({ id }) => id);
  return { notifications, connect, until, live, ids, held, app, to: `${app}/ada` };
}

test("history and stream make one list, newest first, each once", { skip }, async (t) => {
  const { notifications, connect, live, until, ids, to } = service(t);
  const sent = await server.sendMany(to, 5);
  connect();
  await live();
  assert.deepEqual(ids(), [sent[4], sent[3]]);
  sent.push((await server.send(to, "now")).id);
  await until(() => ids().length === 3, "arrival");
  await notifications.loadMore();
  await notifications.loadMore();
  assert.equal(notifications.next(), null);
  assert.deepEqual(ids(), sent.reverse());
});

test("what is marked while an older page is on its way is marked in it too", { skip }, async (t) => {
  const { notifications, connect, live, until, held, to } = service(t);
  const sent = await server.sendMany(to, 4);
  connect();
  await live();
  held.hold(/before=/);
  const loading = notifications.loadMore();
  await held.waiting.count(1, "page");
  await fetch(`${server.url}/api/notifications/state/${to}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ids: [sent[0]], state: "read" }),
  });
  await until(() => notifications.counts()?.unread === 3, "the news of it");
  held.release();
  await loading;
  const marks = notifications.items().map(({ id, read }) => [id, read]);
  assert.deepEqual(marks, [...sent].reverse().map((id) => [id, id === sent[0]]));
});

test("answers for the user before do not reach the next one", { skip }, async (t) => {
  const { notifications, connect, live, until, held, ids, to, app } = service(t);
  await server.sendMany(to, 2);
  const others = await server.sendMany(`${app}/bob`, 1);
  held.hold(/history.*ada/);
  connect();
  await held.waiting.count(1, "history");
  connect({ user: "bob" });
  await live();
  held.release();
  await notifications.send({ data: "to bob" });
  await until(() => ids().length === 2, "arrival");
  assert.equal(ids()[1], others[0]);
  notifications.disconnect();
  assert.deepEqual([ids(), notifications.connection(), notifications.counts()], [[], "closed", undefined]);
});

test("marking all leaves alone what this window has not shown yet", { skip }, async (t) => {
  const { notifications, connect, live, until, held, to } = service(t);
  const sent = await server.sendMany(to, 3);
  held.hold(/subscribe/);
  connect();
  await held.waiting.count(1, "stream");
  const late = await server.send(to, "late");
  await notifications.markAll("read");
  assert.equal(notifications.counts()?.unread, 1);
  held.release();
  await live();
  await until(() => notifications.items()[0]?.id === late.id, "arrival");
  const read = notifications.items().map(({ id, read }) => [id, read]);
  assert.deepEqual(read, [[late.id, false], [sent[2], true], [sent[1], true]]);
});

test("a refusal for good is said, and asked again only on request", { skip }, async (t) => {
  const { notifications, connect, until } = service(t);
  connect({ user: "a\u0007" });
  await until(() => notifications.connection() === "failed", "failed");
  assert.match(notifications.problem()?.type ?? "", /invalid-user$/);
  await assert.rejects(notifications.mark("read", []), (error) => error instanceof TidingsError);
});

test("names that are none are refused before anything changes", { skip }, async (t) => {
  const { notifications, connect, live } = service(t);
  connect();
  await live();
  assert.throws(() => connect({ user: ".." }), TypeError);
  assert.equal(notifications.options()?.user, "ada");
});
