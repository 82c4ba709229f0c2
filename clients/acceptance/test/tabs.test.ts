// Nine tabs of one origin over HTTP/1.1, of which a browser opens six connections to a server: with
// the browser's own EventSource three of them wait, with the package all nine live on one connection.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { Browser, noBrowser, Pages, type BrowserTab } from "../../typescript/build/harness/browser.js";
import { Proxy } from "../../typescript/build/harness/proxy.js";
import { noServer, Server } from "../../typescript/build/harness/server.js";
import { Sending } from "./harness/sending.js";

const skip = noServer || noBrowser;
let pages: Pages;
let browser: Browser;
let server: Server;

before(async () => {
  if (skip) return;
  pages = await Pages.start({ "/native": `${import.meta.dirname}/page/native.js` });
  [browser, server] = await Promise.all([Browser.start(pages), Server.start({ TIDINGS_CORS_ORIGINS: pages.origin() })]);
});
after(async () => {
  await browser?.stop();
  await server?.stop();
  pages?.stop();
});

/** Nine tabs of one user, behind one proxy. */
async function nine(t: TestContext, user: string, path: string, ready: (tab: BrowserTab, place: number) => Promise<void>) {
  const proxy = await Proxy.start(() => server.port);
  const tabs: BrowserTab[] = [];
  t.after(async () => {
    for (const { page } of tabs) await page.close();
    await proxy.stop();
  });
  for (let place = 0; place < 9; place++) {
    const tab = await browser.open({ url: proxy.url, user }, { path });
    tabs.push(tab);
    await ready(tab, place);
  }
  return { proxy, tabs };
}

test("with the browser's own EventSource, a seventh tab waits until another is closed", { skip }, async (t) => {
  const { proxy, tabs } = await nine(t, "bob", "/native", async (tab, place) => {
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

test("with the package all nine live on one connection, which moves within a second", { skip }, async (t) => {
  const { proxy, tabs } = await nine(t, "ada", "/", (tab) => tab.live());
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
  assert.ok(moved < 1_000, `${moved} ms`);

  await sending.more(10);
  await sending.stop();
  const stored = await server.stored("shop/ada");
  assert.deepEqual(stored, sending.answered.all);
  for (const tab of others) assert.deepEqual(await tab.ids.count(stored.length, "notification"), stored);
  assert.equal(proxy.most, 1);

  const read = stored.slice(0, 3);
  await others[0]?.page.evaluate((ids) => window.client.mark("read", { ids }), read);
  for (const tab of others) {
    await tab.told.count(1, "change");
    assert.equal((await tab.page.evaluate(() => window.client.counts())).unread, stored.length - read.length);
  }
});
