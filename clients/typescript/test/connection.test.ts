// How a connection is kept, against servers that do what a real one does not on request.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { memoryStorage, TidingsClient, TidingsError, type ClientOptions, type ConnectionState, type Goodbye } from "@tidings/client";
import { Connection } from "../dist/connection.js";
import { Http } from "../dist/http.js";
import { ending, goodbye, id, live, notification, problem, ready, stream, Stub, type Answer } from "./harness/stub.js";
import { Seen } from "./harness/wait.js";

/** A subscription to a stub, and all it tells. */
async function subscribed(t: TestContext, answers: Answer[], options: Partial<ClientOptions> = {}, from: string | null = id(1)) {
  const stub = await Stub.start(...answers);
  const told = { data: new Seen<unknown>(), states: new Seen<ConnectionState>(), goodbyes: new Seen<Goodbye>(), errors: new Seen<unknown>() };
  const client = new TidingsClient({ url: stub.url, app: "shop", user: "ada", storage: memoryStorage(), ...options });
  const subscription = client.subscribe(
    {
      notification: ({ data }) => told.data.push(data),
      goodbye: (event) => told.goodbyes.push(event),
      error: (error) => told.errors.push(error),
    },
    { from, onConnection: (state) => told.states.push(state) },
  );
  t.after(async () => {
    await subscription.close();
    stub.stop();
  });
  return { stub, client, subscription, ...told };
}

const lastIds = (stub: Stub) => stub.requests.all.map(({ headers }) => headers["last-event-id"]);

test("a stream that ends is continued from the last id of any frame", async (t) => {
  const ping = `id: ${id(5)}\nevent: tidings.ping\ndata: {"time":"t","database":"up"}\n\n`;
  const { stub, data } = await subscribed(t, [
    ending(ready(1), live, notification(2), ping),
    ending(ready(5), live, notification(6)),
    stream(ready(6), live, notification(7)),
  ]);
  await data.count(3, "notification");
  assert.deepEqual(data.all, [2, 6, 7]);
  assert.deepEqual(lastIds(stub), [id(1), id(5), id(6)]);
});

test("a notification that a stream ended within is not taken for whole", async (t) => {
  const { data } = await subscribed(t, [
    ending(ready(1), live, notification(2).slice(0, -1)),
    stream(ready(1), live, notification(2)),
  ]);
  await data.count(1, "notification");
  assert.deepEqual(data.all, [2]);
});

test("the state tells connecting, live, reconnecting, live, closed", async (t) => {
  const { subscription, states } = await subscribed(t, [ending(ready(1), live), stream(ready(1), live)]);
  await states.count(4, "state");
  await subscription.close();
  assert.deepEqual(states.all, ["connecting", "live", "reconnecting", "live", "closed"]);
});

test("a subscription is live when it has what it missed, though the shared stream was before", async (t) => {
  let replayed = () => {};
  const behind: Answer = (answer) => {
    stream(ready(1), notification(2))(answer);
    replayed = () => answer.write(live);
  };
  const { client, data, states } = await subscribed(t, [stream(ready(5), live), behind], {}, id(5));
  await states.until((all) => all.includes("live"), "live");
  const [late, its] = [new Seen<unknown>(), new Seen<ConnectionState>()];
  const handlers = { notification: (n: { data: unknown }) => late.push(n.data) };
  const subscription = client.subscribe(handlers, { from: id(1), onConnection: (state) => its.push(state) });
  t.after(() => subscription.close());
  await late.count(1, "notification");
  assert.deepEqual(its.all, ["connecting"]);
  replayed();
  await its.count(2, "state");
  await subscription.close();
  assert.deepEqual(its.all, ["connecting", "live", "closed"]);
  assert.deepEqual(data.all, [], "the one that was ahead gets nothing twice");
  assert.deepEqual(states.all, ["connecting", "live"], "nor is it disturbed");
});

test("a database that is away is not called live", async (t) => {
  const ping = (database: string) => `id: ${id(1)}\nevent: tidings.ping\ndata: {"time":"t","database":"${database}"}\n\n`;
  const { states } = await subscribed(t, [stream(ready(1), live, ping("unreachable"), ping("up"))]);
  await states.count(4, "state");
  assert.deepEqual(states.all, ["connecting", "live", "reconnecting", "live"]);
});

test("the server's retry is waited for", async (t) => {
  const { stub } = await subscribed(t, [ending(ready(1, 1_800), live), stream(ready(1))]);
  const [first, second] = await stub.requests.count(2, "request");
  const waited = (second?.at ?? 0) - (first?.at ?? 0);
  assert.ok(waited >= 1_795, `${waited} ms, more than without it`);
});

test("each failure doubles the wait", async (t) => {
  const refused = problem(500, "internal");
  const { stub } = await subscribed(t, [ending(ready(1, 60), live), refused, refused, refused, stream(ready(1))]);
  const requests = await stub.requests.count(5, "request");
  const waits = requests.slice(1).map(({ at }, index) => at - (requests[index]?.at ?? 0));
  for (const [index, least] of [60, 120, 240, 480].entries()) assert.ok((waits[index] ?? 0) >= least - 5, `${waits}`);
});

test("whoever hurries is spared the waits that grew, but not what the server asked for", async (t) => {
  const stub = await Stub.start(ending(ready(1, 300), live), problem(500, "internal"));
  const http = new Http({ url: stub.url });
  const connection = new Connection(http, http.address("subscribe", "shop", "ada"), {
    wanted: () => ({ after: id(1), topics: [] }),
    frame() {},
    state() {},
    failed() {},
  });
  const flapping = setInterval(() => connection.hurry(), 1);
  const done = connection.run();
  t.after(async () => {
    clearInterval(flapping);
    connection.close();
    await done;
    stub.stop();
  });
  const requests = await stub.requests.count(8, "request");
  const waits = requests.slice(1).map(({ at }, index) => at - (requests[index]?.at ?? 0));
  assert.ok(waits.every((ms) => ms >= 295), `${waits}`);
  assert.ok((waits.at(-1) ?? 0) < 300 * 2 ** 6, `${waits}, where it would have been more`);
});

test("for whoever hurries the waits begin anew: a network that comes back may not be ready yet", async (t) => {
  const refused = problem(500, "internal");
  const { stub, client, states } = await subscribed(t, [ending(ready(1, 300), live), ...Array<Answer>(6).fill(refused), stream(ready(1), live)]);
  await stub.requests.count(5, "request"); // which is not answered yet
  const other = client.subscribe({}, { from: id(1) });
  t.after(() => other.close());
  await states.until((all) => all.at(-1) === "live", "live");
  const waits = stub.requests.all.slice(1).map(({ at }, index) => at - (stub.requests.all[index]?.at ?? 0));
  assert.ok(waits.slice(4).every((ms) => ms >= 295 && ms < 4_800), `${waits}`);
});

test("a new subscription does not wait for as long as those before it", async (t) => {
  const { stub, client, states } = await subscribed(t, [
    ending(ready(1, 300), live),
    ...Array<Answer>(4).fill(problem(500, "internal")),
    stream(ready(1), live),
  ]);
  const before = await stub.requests.count(5, "request"); // which is not answered yet
  const other = client.subscribe({}, { from: id(1) });
  t.after(() => other.close());
  await states.until((all) => all.at(-1) === "live", "live");
  const waited = (stub.requests.all[5]?.at ?? 0) - (before[4]?.at ?? 0);
  assert.ok(waited >= 295 && waited < 4_800, `${waited} ms`);
});

test("Retry-After is waited for", async (t) => {
  const { stub } = await subscribed(t, [problem(503, "overloaded", { "retry-after": "2" }), stream(ready(1))]);
  const [first, second] = await stub.requests.count(2, "request");
  assert.ok((second?.at ?? 0) - (first?.at ?? 0) >= 1_995);
});

test("a Retry-After that no timer can hold is no reason to hammer", async (t) => {
  const { stub } = await subscribed(t, [problem(503, "overloaded", { "retry-after": "9999999999" })]);
  await stub.requests.count(1, "request");
  const other = await subscribed(t, [problem(500, "internal"), problem(500, "internal"), stream(ready(1))]);
  await other.stub.requests.count(3, "request");
  assert.equal(stub.requests.all.length, 1);
});

test("a goodbye is told, also from a server that does not let one in", async (t) => {
  const { goodbyes, data } = await subscribed(t, [
    ending(goodbye("overloaded", 30)),
    ending(ready(1), live, goodbye("shutdown", 30)),
    stream(ready(1), live, notification(2)),
  ]);
  await data.count(1, "notification");
  assert.deepEqual(
    goodbyes.all.map(({ reason }) => reason),
    ["overloaded", "shutdown"],
  );
});

test("a stream that is silent for two heartbeats is replaced", async (t) => {
  const { stub, data } = await subscribed(t, [stream(ready(1, 20, 0.2), live), stream(ready(1), live, notification(2))]);
  await data.count(1, "notification");
  const [first, second] = stub.requests.all;
  const waited = (second?.at ?? 0) - (first?.at ?? 0);
  assert.ok(waited >= 395 && waited < 10_000, `${waited} ms`);
});

test("a token is asked for before each connection, and again after a 401", async (t) => {
  const asked: boolean[] = [];
  const token = async ({ refresh }: { refresh: boolean }) => (asked.push(refresh), `t${asked.length}`);
  const { stub, data } = await subscribed(
    t,
    [problem(401, "unauthorized"), ending(ready(1), live), stream(ready(1), live, notification(2))],
    { token },
  );
  await data.count(1, "notification");
  assert.deepEqual(asked, [false, true, false]);
  assert.deepEqual(
    stub.requests.all.map(({ headers }) => headers.authorization),
    ["Bearer t1", "Bearer t2", "Bearer t3"],
  );
});

test("a second 401 is final", async (t) => {
  const { stub, errors, states } = await subscribed(t, [problem(401, "unauthorized")], { token: () => "old" });
  await errors.count(1, "error");
  assert.equal((errors.all[0] as TidingsError).slug, "unauthorized");
  assert.equal(states.all.at(-1), "failed");
  assert.equal(stub.requests.all.length, 2);
});

test("a token provider that fails is tried again", async (t) => {
  let calls = 0;
  const token = () => {
    if (++calls === 1) throw new Error("no network");
    return "t";
  };
  const { states } = await subscribed(t, [stream(ready(1), live)], { token });
  await states.until((all) => all.includes("live"), "live");
  assert.deepEqual(states.all, ["connecting", "reconnecting", "live"]);
});

test("a token provider that hangs is given up like a silent stream", async (t) => {
  let calls = 0;
  const token = () => (++calls === 2 ? new Promise<string>(() => {}) : "t");
  const { data } = await subscribed(t, [ending(ready(1, 20, 0.2), live), stream(ready(1), live, notification(2))], { token });
  await data.count(1, "notification");
  assert.ok(calls >= 3, "and on a busy machine so is another one");
});

test("an answer that is no stream is not kept open", async (t) => {
  const closed = new Seen<boolean>();
  const endless: Answer = (answer) => {
    answer.on("close", () => closed.push(true)).writeHead(200, { "content-type": "text/html" });
    answer.write("<p>");
  };
  const { data } = await subscribed(t, [endless, stream(ready(1), live, notification(2))]);
  await data.count(1, "notification");
  await closed.count(1, "end");
});

test("what the server asks to change is final", async (t) => {
  const { errors, subscription } = await subscribed(t, [problem(400, "invalid-user")]);
  await errors.count(1, "error");
  const [error] = errors.all as [TidingsError];
  assert.ok(error instanceof TidingsError);
  assert.equal(error.status, 400);
  assert.equal(error.message, "about invalid-user");
  assert.ok(error.final);
  assert.equal(subscription.connection, "failed");
});

test("a 404 from something in between passes, and so does a page in place of a stream", async (t) => {
  const { data } = await subscribed(t, [
    ending(ready(1), live),
    (answer) => answer.writeHead(404, { "content-type": "text/html" }).end("<h1>deploying</h1>"),
    (answer) => answer.writeHead(200, { "content-type": "text/html" }).end("<h1>log in</h1>"),
    stream(ready(1), live, notification(2)),
  ]);
  await data.count(1, "notification");
});

test("a damaged cursor is surfaced by the server as a gap", async (t) => {
  const { stub } = await subscribed(t, [stream(ready(1), live)], {}, "not\nan id");
  await stub.requests.count(1, "request");
  assert.deepEqual(lastIds(stub), ["-"]);
});

test("a slow handler is not buried: what it has no room for is asked for again", async (t) => {
  const numbers = Array.from({ length: 1_500 }, (_, n) => n + 1);
  const stub = await Stub.start((answer, { headers }) => {
    const after = Number(headers["last-event-id"]);
    stream(ready(after), live, ...numbers.filter((n) => n > after).map((n) => notification(n)))(answer);
  });
  let finish = () => {};
  const first = new Promise<void>((resolve) => (finish = resolve));
  const [fast, slow] = [new Seen<unknown>(), new Seen<unknown>()];
  const client = new TidingsClient({ url: stub.url, app: "shop", user: "ada", storage: memoryStorage() });
  const subscriptions = [
    client.subscribe({ notification: ({ data }) => fast.push(data) }, { from: id(0) }),
    client.subscribe({ notification: ({ data }) => (slow.push(data), first) }, { from: id(0) }),
  ];
  t.after(async () => {
    for (const subscription of subscriptions) await subscription.close();
    stub.stop();
  });
  await slow.count(1, "call");
  await fast.count(1_500, "notification");
  finish();
  await slow.count(1_500, "notification");
  assert.deepEqual([fast.all, slow.all], [numbers, numbers]);
  assert.ok(lastIds(stub).includes(id(1_001)), "1,000 waited, and one was being handled");
});

test("a topic that the server refuses fails only the subscription that wants it", async (t) => {
  const refuse: Answer = (answer, request) =>
    (request.url?.includes("forbidden") ? problem(403, "forbidden") : stream(ready(1), live))(answer, request);
  const { client, errors, subscription, states } = await subscribed(t, [refuse]);
  await states.until((all) => all.includes("live"), "live");
  const failed = new Seen<unknown>();
  const other = client.subscribe({ error: (error) => failed.push(error) }, { from: id(1), topics: ["forbidden"] });
  t.after(() => other.close());
  await failed.count(1, "error");
  await states.until((all) => all.at(-1) === "live", "live again");
  assert.deepEqual(errors.all, []);
  assert.equal(subscription.connection, "live");
});

test("each subscription gets its topics, over one connection", async (t) => {
  const news = [notification(2), notification(3, { topic: "news" }), notification(4, { topic: "deals" }), notification(5, "everyone")];
  const { stub, client, data } = await subscribed(t, [
    (answer, request) => stream(ready(1), live, ...(request.url?.includes("news") ? news : []))(answer),
  ]);
  const both = new Seen<unknown>();
  const other = client.subscribe({ notification: (n) => both.push(n.data) }, { from: id(1), topics: ["deals", "news", "deals"] });
  t.after(() => other.close());
  await both.count(4, "notification");
  await data.count(2, "notification");
  assert.deepEqual(both.all, [2, 3, 4, 5]);
  assert.deepEqual(data.all, [2, 5]);
  assert.match(stub.requests.all.at(-1)?.url ?? "", /topics=deals%2Cnews/);
});
