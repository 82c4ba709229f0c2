// Tabs of a real browser, on another origin than the real server: they share a connection, and each
// gets everything once, whatever happens to the one that leads.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { TidingsClient } from "@tidings/client";
import { PROTOCOL } from "../dist/messages.js";
import { Browser, noBrowser, Pages, type BrowserTab } from "./harness/browser.js";
import { Proxy } from "./harness/proxy.js";
import { noServer, Server } from "./harness/server.js";
import { within } from "./harness/wait.js";
import type { Start } from "./page/page.js";

const skip = noServer || noBrowser;
// As by default: a tab that a busy machine keeps waiting does not take its stream for dead.
const HEARTBEAT = { TIDINGS_HEARTBEAT: "10s" };
const AT_ONCE = 15_000; // ms; generous, and still before two pings can have been missed
let pages: Pages;
let server: Server;
let browser: Browser;

before(async () => {
  if (skip) return;
  pages = await Pages.start();
  server = await Server.start({ TIDINGS_CORS_ORIGINS: pages.origin(), ...HEARTBEAT });
  browser = await Browser.start(pages);
});
after(async () => {
  await browser?.stop();
  await server?.stop();
  pages?.stop();
});

let users = 0;
/** A user of its own, a proxy in front of the server, and tabs that are closed in the end. */
async function setting(t: TestContext, at?: Server) {
  const user = `tab-${++users}`;
  const proxy = await Proxy.start(() => (at ?? server).port);
  const opened: BrowserTab[] = [];
  t.after(async () => {
    for (const { page } of opened) await page.close();
    await proxy.stop();
  });
  const open = async (options: Partial<Start> = {}, also?: Parameters<typeof browser.open>[1]) => {
    const tab = await browser.open({ url: proxy.url, user, history: true, ...options }, also);
    opened.push(tab);
    return tab;
  };
  /** Opens so many tabs; the first one leads. */
  const tabs = async (count: number) => {
    for (let n = 0; n < count; n++) await (await open()).live();
    return opened as [BrowserTab, BrowserTab, ...BrowserTab[]];
  };
  return { proxy, open, tabs, to: `shop/${user}` };
}

/** In a page: once the waits have grown they never end by themselves. */
function patient(): void {
  const real = window.setTimeout;
  const never = (ms: number) => (void window.report("waits", ms), 0);
  window.setTimeout = ((then: () => void, ms = 0) => (ms < 2_500 ? real(then, ms) : never(ms))) as typeof setTimeout;
}

/** In a page: the machine was asleep, and only the clock went on. */
function sleep(): void {
  const { now } = Date;
  Date.now = () => now() + 3_600_000;
}

/** On which the tabs of a user talk. */
function channelOf(proxy: Proxy, to: string): string {
  return `tidings/${PROTOCOL}:${proxy.url}/api/notifications/subscribe/${to}`;
}

/** Each tab got exactly what was sent, in order; by place and not by id, which says what went wrong. */
async function expectAll(tabs: readonly BrowserTab[], sent: readonly string[]): Promise<void> {
  for (const tab of tabs) await tab.ids.count(sent.length, "notification");
  const places = tabs.map(({ ids }) => ids.all.map((id) => sent.indexOf(id)).join());
  assert.deepEqual(places, tabs.map(() => sent.map((_, place) => place).join()));
}

test("nine tabs live on one connection", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const all = await tabs(9);
  const sent = await server.sendMany(to, 20);
  await expectAll(all, sent);
  assert.deepEqual(await server.stored(to), sent);
  await proxy.untilOpen(1);
  assert.equal(proxy.streams.all.length, 1, "a tab that has read the history does not make the others start again");
});

test("tabs with other topics share the connection, and the badge agrees in all", { skip }, async (t) => {
  const { proxy, open, to } = await setting(t);
  const topic = `news-${to}`;
  const [plain, news] = [await open(), await open({ topics: [topic] })];
  for (const tab of [plain, news]) await tab.live();
  const client = new TidingsClient({ url: server.url, app: "shop", user: to.slice(5) });
  const topical = await client.send({ topic }, { data: 1 });
  const sent = await server.sendMany(to, 2);
  await expectAll([news], [topical.id, ...sent]);
  await expectAll([plain], sent);
  await proxy.untilOpen(1);

  await plain.page.evaluate((ids) => window.client.mark("read", { ids }), sent.slice(0, 1));
  for (const tab of [plain, news]) {
    const [change] = await tab.told.count(1, "change");
    assert.equal(change?.[0], "change");
    assert.equal((await tab.page.evaluate(() => window.client.counts())).unread, 1);
  }
});

test("topics of a tab that was killed are not asked for again", { skip }, async (t) => {
  const { proxy, open, to } = await setting(t);
  const topic = (name: string) => `${name}-${to.slice(5)}`;
  const leader = await open();
  await leader.live();
  const left = await open({ topics: [topic("left")] });
  await left.live();
  // Nobody hears that it goes.
  const dumb = () => addEventListener("pagehide", (event) => event.stopImmediatePropagation(), true);
  const killed = await open({ topics: [topic("killed")] }, { before: dumb });
  await killed.live();
  assert.match(proxy.streams.all.at(-1) ?? "", /killed-.*left-/);
  await killed.page.close();
  // Once the leader has heard of it there are three locks, who leads and who is there, and each of the
  // two tabs waits for one.
  const known = async (name: string) => {
    for (let locks = Infinity; locks > 5; await new Promise((later) => setTimeout(later, 20))) {
      const { held = [], pending = [] } = await navigator.locks.query();
      locks = [...held, ...pending].filter((lock) => lock.name?.startsWith(name)).length;
    }
  };
  await within(leader.page.evaluate(known, channelOf(proxy, to)), "what the leader knows");
  const before = proxy.streams.all.length;
  proxy.cut();
  await proxy.streams.count(before + 1, "stream");
  assert.match(proxy.streams.all[before] ?? "", /left-/);
  assert.doesNotMatch(proxy.streams.all[before] ?? "", /killed-/);
});

test("closing the leader moves the connection at once, and nothing is lost", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const [leader, ...others] = await tabs(4);
  const sent = await server.sendMany(to, 5);
  const sending = server.sendMany(to, 60);
  const closed = performance.now();
  await leader.page.close();
  await proxy.streams.count(2, "stream");
  const moved = performance.now() - closed;
  t.diagnostic(`moved after ${Math.round(moved)} ms`);
  assert.ok(moved < AT_ONCE, `${moved} ms`);
  sent.push(...(await sending));
  await expectAll(others, sent);
  await proxy.untilOpen(1);
});

test("a leader that is told it will be frozen hands over, and comes back to everything", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const [leader, ...others] = await tabs(3);
  const frozen = performance.now();
  await leader.lifecycle("frozen");
  await proxy.streams.count(2, "stream");
  const moved = performance.now() - frozen;
  t.diagnostic(`moved after ${Math.round(moved)} ms`);
  assert.ok(moved < AT_ONCE, `${moved} ms`);
  const sent = await server.sendMany(to, 10);
  await expectAll(others, sent);
  assert.deepEqual(leader.ids.all, []);
  await leader.lifecycle("active");
  sent.push(...(await server.sendMany(to, 5)));
  await expectAll([leader, ...others], sent);
  await proxy.untilOpen(1);
});

test("a leader that was frozen without a word is replaced after two silent pings", { skip }, async (t) => {
  const server = await Server.start({ TIDINGS_CORS_ORIGINS: pages.origin() }); // a ping each second
  t.after(() => server.stop());
  const { proxy, open, to } = await setting(t, server);
  const deaf = () => document.addEventListener("freeze", (event) => event.stopImmediatePropagation(), true);
  const leader = await open({}, { before: deaf });
  await leader.live();
  const others = [await open(), await open()];
  for (const tab of others) await tab.live();
  const frozen = performance.now();
  await leader.lifecycle("frozen");
  const sent = await server.sendMany(to, 10);
  await proxy.streams.count(2, "stream");
  t.diagnostic(`replaced after ${Math.round(performance.now() - frozen)} ms`);
  await expectAll(others, sent);
  await leader.lifecycle("active");
  sent.push(...(await server.sendMany(to, 5)));
  await expectAll([leader, ...others], sent);
  await proxy.untilOpen(1);
});

test("a leader from before is not listened to", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const all = await tabs(2);
  // A page that lost its lock while it was frozen answers messages all the same.
  await all[0].page.evaluate((name) => {
    const channel = new BroadcastChannel(name);
    channel.postMessage({ type: "state", leader: 1, state: "offline" });
    channel.postMessage({ type: "frame", leader: 1, stream: "1/1", number: 0, frame: { event: "tidings.live", data: "{}" } });
  }, channelOf(proxy, to));
  await expectAll(all, await server.sendMany(to, 3));
  for (const tab of all) assert.deepEqual(tab.states.all, ["connecting", "live"]);
});

test("a reload goes on where the page was", { skip }, async (t) => {
  const { open, to } = await setting(t);
  const tab = await open();
  await tab.live();
  const sent = await server.sendMany(to, 5);
  await expectAll([tab], sent);
  const sending = server.sendMany(to, 30);
  await tab.reload();
  sent.push(...(await sending));
  await expectAll([tab], sent);
});

test("reloading the leader of several tabs loses and doubles nothing in any of them", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const all = await tabs(3);
  const sending = server.sendMany(to, 40);
  await all[0].reload();
  const sent = await sending;
  await expectAll(all, sent);
  await proxy.untilOpen(1);
});

test("cuts, and a network that is away, lose and double nothing in any tab", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const all = await tabs(3);
  const sent: string[] = [];
  for (let round = 0; round < 3; round++) {
    const sending = server.sendMany(to, 15);
    proxy.cut();
    sent.push(...(await sending));
    await expectAll(all, sent);
  }
  proxy.break();
  for (const tab of all) await tab.states.until((states) => states.at(-1) === "reconnecting", "reconnecting");
  sent.push(...(await server.sendMany(to, 5)));
  proxy.mend();
  await expectAll(all, sent);
  for (const tab of all) await tab.live();
});

test("a tab that somebody looks at does not wait, whether it leads or not", { skip }, async (t) => {
  const { proxy, open, to } = await setting(t);
  const leader = await open({}, { before: patient });
  await leader.live();
  const all = [leader, await open()];
  const cover = await browser.context.newPage();
  t.after(() => cover.close());
  const sent: string[] = [];
  for (const [round, tab] of all.entries()) {
    for (const each of all) await each.live();
    await cover.bringToFront();
    proxy.break();
    await leader.told.count(round + 1, "wait");
    sent.push(...(await server.sendMany(to, 3)));
    proxy.mend();
    await tab.page.bringToFront();
    await expectAll(all, sent);
  }
  await proxy.untilOpen(1);
});

test("a tab that woke from a sleep does not wait, whether it leads or not, though nobody tells it", { skip }, async (t) => {
  const { proxy, open, to } = await setting(t);
  const leader = await open({}, { before: patient });
  await leader.live();
  const all = [leader, await open()];
  const sent: string[] = [];
  for (const [round, tab] of all.entries()) {
    await tab.page.bringToFront();
    for (const each of all) await each.live();
    proxy.break();
    await leader.told.count(round + 1, "wait");
    sent.push(...(await server.sendMany(to, 3)));
    proxy.mend();
    await tab.page.evaluate(sleep);
    await expectAll(all, sent);
  }
  await proxy.untilOpen(1);
});

test("a tab that nobody looks at is not taken for woken because its timers are late", { skip }, async (t) => {
  const { proxy, open, to } = await setting(t);
  const tab = await open({}, { before: patient });
  await tab.live();
  const cover = await browser.context.newPage();
  t.after(() => cover.close());
  proxy.break();
  await tab.told.count(1, "wait");
  proxy.mend();
  await tab.page.evaluate(sleep);
  const beats = async (name: string) => {
    const channel = new BroadcastChannel(name);
    for (let beats = 0; beats < 3; ) beats += await new Promise<number>((heard) => (channel.onmessage = ({ data }) => heard(Number(data.type === "beat"))));
  };
  await within(tab.page.evaluate(beats, channelOf(proxy, to)), "three ticks");
  assert.equal(proxy.streams.all.length, 1);
});

test("a browser that is offline says so, and comes back with everything", { skip }, async (t) => {
  const { tabs, to } = await setting(t);
  const all = await tabs(2);
  await browser.context.setOffline(true);
  for (const tab of all) await tab.states.until((states) => states.includes("offline"), "offline");
  const sent = await server.sendMany(to, 5);
  await browser.context.setOffline(false);
  for (const tab of all) await tab.live();
  sent.push(...(await server.sendMany(to, 2)));
  await expectAll(all, sent);
});

const POORER: Record<string, () => void> = {
  "Web Locks": () => Object.defineProperty(Navigator.prototype, "locks", { value: undefined }),
  // As in browsers that are told to keep nothing.
  BroadcastChannel: () => {
    window.BroadcastChannel = function () {
      throw new DOMException("The operation is insecure.", "SecurityError");
    } as unknown as typeof BroadcastChannel;
  },
};
for (const [missing, before] of Object.entries(POORER)) {
  test(`without ${missing} each tab has a connection of its own, and says so once`, { skip }, async (t) => {
    const { proxy, open, to } = await setting(t);
    const all = [await open({}, { before }), await open({}, { before })];
    for (const tab of all) await tab.live();
    await expectAll(all, await server.sendMany(to, 5));
    await proxy.untilOpen(2);
    const again = all[0] as BrowserTab;
    await again.page.evaluate(() => window.stop());
    await again.start();
    await again.states.until((states) => states.lastIndexOf("live") > states.indexOf("closed"), "live again");
    for (const tab of all) assert.deepEqual(tab.told.all.map(([kind]) => kind), ["info"]);
  });
}

test("an origin that the server does not know is told what to set", { skip }, async (t) => {
  const { open } = await setting(t);
  const tab = await open({ history: false }, { host: "localhost" });
  await tab.problems.count(1, "problem");
  const [problem] = tab.problems.all;
  assert.match(problem?.type ?? "", /foreign-page$/);
  assert.match(problem?.detail ?? "", /localhost.*TIDINGS_CORS_ORIGINS/);
  assert.equal(tab.states.all.at(-1), "reconnecting");
});

test("a request that is cut is not taken for an origin that is refused", { skip }, async (t) => {
  const { open } = await setting(t);
  const first = () => {
    const real = window.fetch;
    window.fetch = () => ((window.fetch = real), Promise.reject(new TypeError("cut")));
  };
  const tab = await open({ history: false }, { before: first });
  await tab.live();
  assert.deepEqual(tab.problems.all.map(({ title }) => title), ["unreachable"]);
});

test("nor is a server whose answers were read, whatever a gateway says in its place", { skip }, async (t) => {
  const { proxy, tabs, to } = await setting(t);
  const [tab] = await tabs(1);
  await tab.page.evaluate(() => {
    const real = window.fetch;
    let left = 2; // that no page may read
    window.fetch = (input, init) => (init?.mode !== "no-cors" && left-- > 0 ? Promise.reject(new TypeError("foreign")) : real(input, init));
  });
  proxy.cut();
  await expectAll([tab], await server.sendMany(to, 1));
  assert.deepEqual(tab.problems.all.map(({ title }) => title), ["unreachable"]);
});
