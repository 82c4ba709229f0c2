// What the browser's own EventSource makes of answers, as docs/protocol.md says it; and that the real
// server's "not now" is among those from which it comes back.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test, type TestContext } from "node:test";
import type { Server } from "../../typescript/build/harness/server.js";
import { Answers } from "./harness/answers.js";
import { skip, World } from "./harness/world.js";

let world: World;

before(async () => {
  if (!skip) world = await World.start();
});
after(() => world?.stop());

/** A tab behind a proxy of its own. */
async function open(t: TestContext, server: Server, user: string) {
  const proxy = await world.proxy(t, server);
  return { proxy, tab: await world.open(t, "native", proxy, user) };
}

const subscribe = (server: Server, accept: string) =>
  fetch(`${server.url}/api/notifications/subscribe/shop/ada`, { headers: { accept } });

test("the table in docs/protocol.md is what EventSource does in this browser", { skip }, async () => {
  const page = await world.browser.context.newPage();
  await page.goto(`${world.pages.origin()}/nothing`);
  const observed = await Answers.observe(page);
  const text = await readFile(`${import.meta.dirname}/../../../docs/protocol.md`, "utf8");
  const [, table] = /^\| answer \| events.*\n\|[-|]+\n((?:\|.*\n)+)/m.exec(text) ?? [];
  assert.equal(table ?? "there is no table", observed);
  await page.close();
});

test("a stream that is refused for overload comes back by itself, and has everything", { skip }, async (t) => {
  const server = await world.server({ TIDINGS_MAX_CONNECTIONS: "1" });
  const { tab, proxy } = await open(t, server, "ada");
  await tab.live();
  proxy.break();
  await tab.states.until((all) => all.at(-1) === "reconnecting", "reconnecting");
  const other = await open(t, server, "bob");
  await other.tab.states.until((all) => all.at(-1) === "live", "the only place");
  proxy.mend();
  await proxy.streams.count(2, "stream");
  const refusal = await subscribe(server, "text/event-stream");
  assert.equal(refusal.status, 200);
  assert.match(await refusal.text(), /^retry: \d+\nevent: tidings\.goodbye\ndata: {"reason":"overloaded"}\n\n$/);
  assert.equal((await subscribe(server, "*/*")).status, 503);
  const sent = await server.sendMany("shop/ada", 5);
  assert.deepEqual(tab.ids.all, []);

  await other.tab.page.evaluate(() => window.source.close());
  assert.deepEqual(await tab.ids.until((all) => all.length >= 5, "notifications"), sent);
  assert.ok(!tab.states.all.includes("failed"));
});

test("a server that is shut down and started again keeps its EventSources", { skip }, async (t) => {
  const server = await world.server();
  const { tab, proxy } = await open(t, server, "ada");
  await tab.live();
  await server.end();
  await tab.states.until((all) => all.at(-1) === "reconnecting", "reconnecting");
  assert.deepEqual(tab.told.all.at(-1), ["goodbye", { reason: "shutdown" }]);
  await proxy.streams.count(3, "stream that is dropped before an answer");
  await server.run();
  await tab.live();
  const sent = await server.sendMany("shop/ada", 5);
  assert.deepEqual(await tab.ids.count(5, "notification"), sent);
  assert.ok(!tab.states.all.includes("failed"));
});

test("what a page has to mend itself is final", { skip }, async () => {
  const server = await world.server();
  const page = await world.browser.context.newPage();
  await page.goto(world.pages.origin());
  const address = `${server.url}/api/notifications/subscribe/shop/ada?last_event_id=17`;
  assert.equal((await fetch(address)).status, 400);
  const state = await page.evaluate(
    (address) =>
      new Promise((resolve) => {
        const source = new EventSource(address);
        source.onerror = () => resolve(source.readyState);
      }),
    address,
  );
  assert.equal(state, 2);
  await page.close();
});
