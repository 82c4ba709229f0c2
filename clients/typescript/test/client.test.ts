// The package against a real server, in Node.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { memoryStorage, TidingsClient, TidingsError, type ClientOptions, type ConnectionState, type CursorStorage, type Gap } from "@tidings/client";
import { inFrontOf } from "./harness/older.js";
import { Proxy } from "./harness/proxy.js";
import { noServer, Server } from "./harness/server.js";
import { Seen, within } from "./harness/wait.js";

const skip = noServer;
let server: Server;
let older: { port: number; stop(): void };

before(async () => {
  if (skip) return;
  server = await Server.start();
  older = await inFrontOf(() => server.port);
});
after(async () => {
  older?.stop();
  await server?.stop();
});

interface Events {
  "order.shipped": { order: number };
}

let users = 0;
/** A client of a user that nobody else has, through a proxy of its own. */
async function client(options: Partial<ClientOptions> = {}) {
  const user = `ada-${++users}`;
  const proxy = await Proxy.start(() => older.port);
  const make = (also: Partial<ClientOptions> = {}) =>
    new TidingsClient<Events>({ url: proxy.url, app: "shop", user, storage: memoryStorage(), ...options, ...also });
  return { proxy, make, tidings: make(), to: `shop/${user}` };
}

/** Subscribes and waits until it is live. */
async function live(tidings: TidingsClient<Events>, from?: string | null) {
  const ids = new Seen<string>();
  const gaps = new Seen<Gap>();
  const states = new Seen<ConnectionState>();
  const subscription = tidings.subscribe(
    { notification: ({ id }) => ids.push(id), gap: (gap) => gaps.push(gap) },
    { ...(from !== undefined && { from }), onConnection: (state) => states.push(state) },
  );
  await states.until((all) => all.includes("live"), "live");
  return { ids, gaps, states, subscription };
}

test("handlers get typed notifications, in order", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const seen = new Seen<unknown>();
  const states = new Seen<ConnectionState>();
  const subscription = tidings.subscribe(
    {
      notification: (n) => seen.push(n.event === "order.shipped" ? n.data.order : n.data),
      on: { "order.shipped": ({ data, audience }) => seen.push([data.order, audience]) },
    },
    { onConnection: (state) => states.push(state) },
  );
  await states.until((all) => all.includes("live"), "live");
  await server.send(to, { order: 17 }, "order.shipped");
  await server.send(to, "hello");
  await seen.count(3, "call");
  await subscription.close();
  assert.deepEqual(seen.all, [17, [17, { user: to.slice(5) }], "hello"]);
  await proxy.stop();
});

test("an async iterator gets the same, and has handled what it asks for more after", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const sent = await server.sendMany(to, 3);
  const read = async (count: number) => {
    const ids: string[] = [];
    for await (const event of tidings.events({ from: ids.length ? null : start })) {
      if (event.type === "notification") ids.push(event.id);
      if (ids.length === count) break;
    }
    return ids;
  };
  let start: string | null = "earliest";
  assert.deepEqual(await within(read(2), "two"), sent.slice(0, 2));
  start = null;
  // The loop was left within the second one.
  assert.deepEqual(await within(read(2), "the others"), sent.slice(1));
  await proxy.stop();
});

test("the stream goes on exactly where a history ends", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const before = await server.sendMany(to, 3);
  const page = await tidings.history({ limit: 2 });
  assert.deepEqual(
    page.notifications.map(({ id }) => id),
    before.slice(1).reverse(),
  );
  const after = await server.sendMany(to, 2);
  const { ids, subscription } = await live(tidings, page.cursor);
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, after);
  const older = await tidings.history({ before: page.next ?? "" });
  assert.deepEqual(
    older.notifications.map(({ id }) => id),
    before.slice(0, 1),
  );
  await subscription.close();
  await proxy.stop();
});

test("the cursor is kept only when the handler is done", { skip }, async () => {
  const kept = new Seen<string>();
  const storage: CursorStorage = { get: () => kept.all.at(-1), set: (_, value) => kept.push(value) };
  const { tidings, to, proxy } = await client({ storage });
  const sent = await server.sendMany(to, 2);
  const entered = new Seen<string>();
  let finish = () => {};
  const subscription = tidings.subscribe(
    { notification: ({ id }) => (entered.push(id), new Promise<void>((resolve) => (finish = resolve))) },
    { from: "earliest" },
  );
  await entered.count(1, "call");
  assert.equal(kept.all.includes(sent[0] as string), false, "not while it runs");
  assert.equal(entered.all.length, 1, "one at a time");
  finish();
  await entered.count(2, "call");
  assert.equal(kept.all.at(-1), sent[0]);
  const closed = subscription.close();
  finish();
  await closed;
  assert.equal(kept.all.at(-1), sent[1], "closing lets it finish");
  await proxy.stop();
});

test("a handler that fails ends the subscription before what it failed at", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const sent = await server.sendMany(to, 3);
  const errors = new Seen<unknown>();
  tidings.subscribe(
    {
      notification({ id }) {
        if (id === sent[1]) throw new Error("cannot");
      },
      error: (error) => errors.push((error as Error).message),
    },
    { from: "earliest" },
  );
  await errors.count(1, "error");
  assert.deepEqual(errors.all, ["cannot"]);
  const { ids, subscription } = await live(tidings);
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent.slice(1));
  await subscription.close();
  await proxy.stop();
});

test("through any number of cuts nothing is lost or doubled", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const { ids, subscription } = await live(tidings);
  const sent: string[] = [];
  for (let round = 0; round < 4; round++) {
    sent.push(...(await server.sendMany(to, 5)));
    proxy.cut();
    sent.push(...(await server.sendMany(to, 5)));
    await ids.count(sent.length, "notification");
  }
  await subscription.close();
  assert.deepEqual(ids.all, sent);
  assert.deepEqual(await server.stored(to), sent);
  await proxy.stop();
});

test("a connection that is silently dead is replaced, and nothing is lost", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  const { ids, states, subscription } = await live(tidings);
  proxy.hold();
  const sent = await server.sendMany(to, 2);
  await states.until((all) => all.includes("reconnecting"), "reconnecting");
  proxy.mend();
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent);
  await subscription.close();
  await proxy.stop();
});

test("a server that is killed and started again loses and doubles nothing", { skip }, async (t) => {
  const mortal = await Server.start();
  t.after(() => mortal.stop());
  const front = await inFrontOf(() => mortal.port);
  const tidings = new TidingsClient<Events>({ url: `http://127.0.0.1:${front.port}`, app: "shop", user: "eve", storage: memoryStorage() });
  const { ids, subscription } = await live(tidings);
  const sent = await mortal.sendMany("shop/eve", 3);
  await mortal.end("SIGKILL");
  await mortal.run();
  sent.push(...(await mortal.sendMany("shop/eve", 3)));
  await ids.count(6, "notification");
  assert.deepEqual(ids.all, sent);
  await subscription.close();
  front.stop();
});

test("a cursor of another database is surfaced as a gap, and lower ids count again", { skip }, async () => {
  const { tidings, to, proxy } = await client();
  await server.send(to, 1);
  const { ids, gaps, subscription } = await live(tidings, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  await gaps.count(1, "gap");
  assert.equal(gaps.all[0]?.reason, "ahead");
  const sent = await server.sendMany(to, 2);
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent);
  await subscription.close();
  await proxy.stop();
});

test("two subscriptions share a connection, and each gets everything once", { skip }, async () => {
  const { make, to, proxy } = await client();
  const storage = memoryStorage();
  const one = await live(make({ storage }));
  const sent = await server.sendMany(to, 3);
  await one.ids.count(3, "notification");
  const two = await live(make(), "earliest");
  await two.ids.count(3, "notification");
  sent.push(...(await server.sendMany(to, 3)));
  await one.ids.count(6, "notification");
  await two.ids.count(6, "notification");
  assert.deepEqual([one.ids.all, two.ids.all], [sent, sent]);
  assert.equal(proxy.open, 1);

  await one.subscription.close(); // the leader
  sent.push(...(await server.sendMany(to, 3)));
  await two.ids.count(9, "notification");
  assert.deepEqual(two.ids.all, sent);
  await two.subscription.close();
  await proxy.stop();
});

test("a refusal is a TidingsError with the server's words", { skip }, async () => {
  const { tidings, proxy } = await client();
  await assert.rejects(tidings.history({ limit: 501 }), (error) => {
    assert.ok(error instanceof TidingsError);
    assert.equal(error.slug, "invalid-parameter");
    assert.equal(error.status, 400);
    assert.match(error.message, /limit/);
    return true;
  });
  await proxy.stop();
  await assert.rejects(tidings.history(), (error) => error instanceof TidingsError && error.slug === "unreachable" && error.status === 0);
});
