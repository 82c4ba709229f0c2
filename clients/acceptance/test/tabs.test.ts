// Nine tabs of one origin over HTTP/1.1, of which a browser opens six connections to a server: with
// the browser's own EventSource three of them wait, with the package all nine live on one connection.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import type { BrowserTab } from "../../typescript/build/harness/browser.js";
import type { Server } from "../../typescript/build/harness/server.js";
import { Sending } from "./harness/sending.js";
import { skip, World, type Kind } from "./harness/world.js";

let world: World;
let server: Server;

before(async () => {
  if (skip) return;
  world = await World.start();
  // As by default: a tab that a busy machine keeps waiting does not take its stream for dead.
  server = await world.server({ TIDINGS_HEARTBEAT: "10s" });
});
after(() => world?.stop());

/** Nine tabs of one user, behind one proxy. */
async function nine(t: TestContext, kind: Kind, user: string, ready: (tab: BrowserTab, place: number) => Promise<void>) {
  const proxy = await world.proxy(t, server);
  const tabs: BrowserTab[] = [];
  for (let place = 0; place < 9; place++) {
    const tab = await world.open(t, kind, proxy, user);
    tabs.push(tab);
    await ready(tab, place);
  }
  return { proxy, tabs };
}

test("with the browser's own EventSource, a seventh tab waits until another is closed", { skip }, async (t) => {
  const { proxy, tabs } = await nine(t, "native", "bob", async (tab, place) => {
    if (place < 6) await tab.live();
  });
  const [first, ...rest] = tabs as [BrowserTab, ...BrowserTab[]];
  await server.send("shop/bob", 1);
  for (const tab of tabs.slice(0, 6)) await tab.ids.count(1, "notification");
  for (const tab of tabs.slice(6)) assert.deepEqual([tab.ids.all, tab.states.all], [[], []]);
  assert.equal(proxy.most, 6);
  await first.page.close();
  await (rest[5] as BrowserTab).live();
});

test("with the package all nine live on one connection, which moves at once", { skip }, async (t) => {
  const { proxy, tabs } = await nine(t, "package", "ada", (tab) => tab.live());
  const [leader, ...others] = tabs as [BrowserTab, ...BrowserTab[]];
  const sending = new Sending(server, "shop/ada");
  for (const tab of tabs) await tab.ids.count(5, "notification");
  assert.equal(proxy.most, 1);
  assert.match(proxy.streams.all[0] ?? "", /^GET .* HTTP\/1\.1\r\n/);

  const closed = performance.now();
  await leader.page.close();
  await proxy.streams.count(2, "stream");
  const moved = performance.now() - closed;
  t.diagnostic(`moved after ${Math.round(moved)} ms`);
  assert.ok(moved < 15_000, `${moved} ms, in which two pings can be missed`);

  await sending.more(10);
  await sending.stop();
  const stored = await server.stored("shop/ada");
  assert.deepEqual(stored, sending.answered.all);
  for (const tab of others) assert.deepEqual(await tab.ids.count(stored.length, "notification"), stored);
  await proxy.untilOpen(1);

  const read = stored.slice(0, 3);
  await others[0]?.page.evaluate((ids) => window.client.mark("read", { ids }), read);
  for (const tab of others) {
    await tab.told.count(1, "change");
    assert.equal((await tab.page.evaluate(() => window.client.counts())).unread, stored.length - read.length);
  }
});
