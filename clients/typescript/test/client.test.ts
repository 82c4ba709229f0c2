// The package against a real server, in Node.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { applyState, memoryStorage, TidingsClient, TidingsError } from "@tidings/client";
import type { ClientOptions, ConnectionState, CursorStorage, Gap, StateChange } from "@tidings/client";
import { Proxy } from "./harness/proxy.js";
import { noServer, Server } from "./harness/server.js";
import { Seen, within } from "./harness/wait.js";

const skip = noServer;
let server: Server;

before(async () => {
  if (!skip) server = await Server.start();
});
after(() => server?.stop());

interface Events {
  "order.shipped": { order: number };
}

const ZERO = "0".repeat(26);
let apps = 0;
/** A client of an app that nobody else has, through a proxy of its own; all is closed in the end. */
async function client(t: TestContext, options: Partial<ClientOptions> = {}) {
  const app = `shop-${++apps}`;
  const user = "ada";
  const proxy = await Proxy.start(() => server.port);
  const end = new AbortController();
  t.after(async () => {
    end.abort();
    await proxy.stop();
  });
  const make = (also: Partial<ClientOptions> = {}) =>
    new TidingsClient<Events>({ url: proxy.url, app, user, storage: memoryStorage(), ...options, ...also });
  const tidings = make();
  const live = (from?: string | null, topics?: string[], by = tidings) => untilLive(by, end.signal, from, topics);
  return { proxy, make, tidings, user, to: `${app}/${user}`, live, signal: end.signal };
}

/** Subscribes and waits until it is live. */
async function untilLive(tidings: TidingsClient<Events>, signal: AbortSignal, from: string | null = null, topics: string[] = []) {
  const ids = new Seen<string>();
  const changes = new Seen<StateChange>();
  const gaps = new Seen<Gap>();
  const states = new Seen<ConnectionState>();
  const subscription = tidings.subscribe(
    { notification: ({ id }) => ids.push(id), state: (change) => changes.push(change), gap: (gap) => gaps.push(gap) },
    { from, topics, signal, onConnection: (state) => states.push(state) },
  );
  await states.until((all) => all.includes("live"), "live");
  return { ids, changes, gaps, states, subscription };
}

test("handlers get typed notifications, in order", { skip }, async (t) => {
  const { tidings, to, user, signal } = await client(t);
  const seen = new Seen<unknown>();
  const states = new Seen<ConnectionState>();
  const subscription = tidings.subscribe(
    {
      notification: (n) => seen.push(n.event === "order.shipped" ? n.data.order : n.data),
      on: { "order.shipped": ({ data, audience }) => seen.push([data.order, audience]) },
    },
    { signal, onConnection: (state) => states.push(state) },
  );
  await states.until((all) => all.includes("live"), "live");
  await server.send(to, { order: 17 }, "order.shipped");
  await server.send(to, "hello");
  await seen.count(3, "call");
  await subscription.close();
  assert.deepEqual(seen.all, [17, [17, { user }], "hello"]);
});

test("an async iterator gets the same, and has handled what it asks for more after", { skip }, async (t) => {
  const { tidings, to, signal } = await client(t);
  const sent = await server.sendMany(to, 3);
  const read = async (count: number) => {
    const ids: string[] = [];
    for await (const event of tidings.events({ from: start, signal })) {
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
});

test("the stream goes on exactly where a history ends", { skip }, async (t) => {
  const { tidings, live, to } = await client(t);
  const before = await server.sendMany(to, 3);
  const page = await tidings.history({ limit: 2 });
  assert.deepEqual(
    page.notifications.map(({ id }) => id),
    before.slice(1).reverse(),
  );
  const after = await server.sendMany(to, 2);
  const { ids } = await live(page.cursor);
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, after);
  const older = await tidings.history({ before: page.next ?? "" });
  assert.deepEqual(
    older.notifications.map(({ id }) => id),
    before.slice(0, 1),
  );
});

test("the cursor is kept only when the handler is done", { skip }, async (t) => {
  const kept = new Seen<string>();
  const storage: CursorStorage = { get: () => kept.all.at(-1), set: (_, value) => kept.push(value) };
  const { tidings, to, signal, proxy } = await client(t, { storage });
  const sent = await server.sendMany(to, 2);
  const entered = new Seen<string>();
  let finish = () => {};
  const subscription = tidings.subscribe(
    { notification: ({ id }) => (entered.push(id), new Promise<void>((resolve) => (finish = resolve))) },
    { from: "earliest", signal },
  );
  await entered.count(1, "call");
  assert.equal(kept.all.includes(sent[0] as string), false, "not while it runs");
  assert.equal(entered.all.length, 1, "one at a time");
  finish();
  await entered.count(2, "call");
  assert.equal(kept.all.at(-1), sent[0]);
  const closed = subscription.close();
  await proxy.untilOpen(0);
  finish();
  await closed;
  assert.equal(kept.all.at(-1), sent[1], "closing lets it finish");
});

test("a handler that fails ends the subscription before what it failed at", { skip }, async (t) => {
  const { tidings, live, to } = await client(t);
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
  const { ids } = await live();
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent.slice(1));
});

test("through any number of cuts nothing is lost or doubled", { skip }, async (t) => {
  const { live, to, proxy } = await client(t);
  const { ids, subscription } = await live();
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
});

test("a connection that is silently dead is replaced, and nothing is lost", { skip }, async (t) => {
  const { live, to, proxy } = await client(t);
  const { ids, states } = await live();
  proxy.hold();
  const sent = await server.sendMany(to, 2);
  await states.until((all) => all.includes("reconnecting"), "reconnecting");
  proxy.mend();
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent);
});

test("a server that is killed and started again loses and doubles nothing", { skip }, async (t) => {
  const mortal = await Server.start();
  const end = new AbortController();
  t.after(() => (end.abort(), mortal.stop()));
  const tidings = new TidingsClient<Events>({ url: mortal.url, app: "shop", user: "eve", storage: memoryStorage() });
  const { ids } = await untilLive(tidings, end.signal);
  const sent = await mortal.sendMany("shop/eve", 3);
  await mortal.end("SIGKILL");
  await mortal.run();
  sent.push(...(await mortal.sendMany("shop/eve", 3)));
  await ids.count(6, "notification");
  assert.deepEqual(ids.all, sent);
});

test("a cursor of another database is surfaced as a gap, and lower ids count again", { skip }, async (t) => {
  const { live, to } = await client(t);
  await server.send(to, 1);
  const { ids, gaps } = await live("7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  await gaps.count(1, "gap");
  assert.equal(gaps.all[0]?.reason, "ahead");
  const sent = await server.sendMany(to, 2);
  await ids.count(2, "notification");
  assert.deepEqual(ids.all, sent);
});

test("two subscriptions share a connection, and each gets everything once", { skip }, async (t) => {
  const { make, live, to, proxy } = await client(t);
  const storage = memoryStorage();
  const one = await live(null, [], make({ storage }));
  const sent = await server.sendMany(to, 3);
  await one.ids.count(3, "notification");
  const two = await live("earliest", [], make());
  await two.ids.count(3, "notification");
  sent.push(...(await server.sendMany(to, 3)));
  await one.ids.count(6, "notification");
  await two.ids.count(6, "notification");
  assert.deepEqual([one.ids.all, two.ids.all], [sent, sent]);
  await proxy.untilOpen(1);

  await one.subscription.close(); // the leader
  sent.push(...(await server.sendMany(to, 3)));
  await two.ids.count(9, "notification");
  assert.deepEqual(two.ids.all, sent);
});

test("subscriptions get their topics and everyone's, over one connection", { skip }, async (t) => {
  const { tidings, make, live, user, proxy } = await client(t);
  const topic = "news";
  const plain = await live();
  const news = await live(null, [topic], make());
  const own = await tidings.send({ user }, { data: 1 });
  const topical = await tidings.send({ topic }, { data: 2 });
  const all = await tidings.send("everyone", { event: "order.shipped", data: { order: 3 } });
  await news.ids.count(3, "notification");
  await plain.ids.count(2, "notification");
  assert.deepEqual(news.ids.all, [own.id, topical.id, all.id]);
  assert.deepEqual(plain.ids.all, [own.id, all.id]);
  await proxy.untilOpen(1);
  const { notifications } = await tidings.history({ topics: [topic], limit: 3 });
  assert.deepEqual(
    notifications.map(({ audience }) => audience),
    ["everyone", { topic }, { user }],
  );
});

test("a topic that is added later is replayed from its own cursor", { skip }, async (t) => {
  const { tidings, make, live, to } = await client(t);
  const topic = "news";
  const plain = await live();
  const page = await tidings.history({ topics: [topic] });
  const missed = await tidings.send({ topic }, { data: 1 });
  const sent = await server.sendMany(to, 2);
  await plain.ids.count(2, "notification");
  const late = await live(page.cursor, [topic], make());
  await late.ids.count(3, "notification");
  assert.deepEqual(late.ids.all, [missed.id, ...sent]);
  sent.push(...(await server.sendMany(to, 1)));
  await plain.ids.count(3, "notification");
  assert.deepEqual(plain.ids.all, sent);
});

test("what is marked on one device comes to all, once, and the counts agree", { skip }, async (t) => {
  const { make, live, to } = await client(t);
  const [phone, desk] = [make({ share: false }), make({ share: false })];
  const devices = [await live(null, [], phone), await live(null, [], desk)];
  const sent = await server.sendMany(to, 3);
  const before = await phone.counts();
  assert.deepEqual([before.unread, before.unseen], [3, 3]);
  let list = (await desk.history()).notifications as readonly { id: string; read: boolean; seen: boolean }[];

  const ids = sent.slice(0, 1);
  const marked = await phone.mark("read", { ids });
  assert.deepEqual([marked.changed, marked.unread, marked.unseen], [1, 2, 2]);
  assert.equal((await phone.mark("read", { ids })).changed, 0);
  await phone.mark("seen", { up_to: sent[2] as string });
  for (const { changes } of devices) {
    await changes.count(2, "change");
    assert.deepEqual(
      changes.all.map(({ state, ids, up_to }) => ({ state, ids, up_to })),
      [
        { state: "read", ids, up_to: undefined },
        { state: "seen", ids: undefined, up_to: sent[2] },
      ],
    );
  }
  for (const change of devices[1]?.changes.all ?? []) list = applyState(applyState(list, change), change);
  const marks = (of: typeof list) => of.map(({ id, read, seen }) => ({ id, read, seen }));
  assert.deepEqual(marks(list), marks((await desk.history()).notifications));
  assert.deepEqual((await desk.history({ state: "unread" })).notifications.map(({ id }) => id), sent.slice(1).reverse());
  const { unread, unseen } = await desk.counts();
  assert.deepEqual([unread, unseen], [2, 0]);
});

test("what is withdrawn or replaced goes everywhere", { skip }, async (t) => {
  const { tidings, live, user } = await client(t);
  const { changes } = await live();
  const first = await tidings.send({ user }, { data: 1, replaces: "progress" });
  const second = await tidings.send({ user }, { data: 2, replaces: "progress" });
  assert.equal((await tidings.notification(second.id)).data, 2);
  await tidings.withdraw(second.id);
  await tidings.withdraw(second.id);
  await changes.count(2, "change");
  assert.deepEqual(
    changes.all.map(({ ids, state, by }) => ({ ids, state, by })),
    [
      { ids: [first.id], state: "replaced", by: second.id },
      { ids: [second.id], state: "withdrawn", by: undefined },
    ],
  );
  assert.deepEqual((await tidings.history()).notifications, []);
  await assert.rejects(tidings.notification(second.id), (error) => error instanceof TidingsError && error.slug === "withdrawn");
  await assert.rejects(tidings.withdraw(ZERO), (error) => error instanceof TidingsError && error.status === 404);
});

test("sending is answered with ids, and a repetition with the same", { skip }, async (t) => {
  const { tidings, to, user } = await client(t);
  const { ids } = await tidings.send({ users: [user, "bob"] }, { data: 1 });
  assert.equal(ids.length, 2);
  const idempotencyKey = "order-17";
  const once = await tidings.send({ user }, { data: 2 }, { idempotencyKey });
  assert.deepEqual(await tidings.send({ user }, { data: 2 }, { idempotencyKey }), once);
  await assert.rejects(tidings.send({ user }, { data: 3 }, { idempotencyKey }), (error) => {
    return error instanceof TidingsError && error.slug === "idempotency-mismatch";
  });
  assert.deepEqual(await server.stored(to), [ids[0], once.id]);
});

test("a refusal is a TidingsError with the server's words", { skip }, async (t) => {
  const { tidings, proxy } = await client(t);
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
