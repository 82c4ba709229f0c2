// What "offline" of the DevTools protocol does in this Chromium, so that it is known what a test with
// it has shown: it refuses new connections, and leaves those that are open alone.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Server } from "../../typescript/build/harness/server.js";
import { network } from "./harness/network.js";
import { skip, World } from "./harness/world.js";

let world: World;
let server: Server;

before(async () => {
  if (skip) return;
  world = await World.start();
  server = await world.server();
});
after(() => world?.stop());

test("offline by the DevTools protocol does not cut an open EventSource", { skip }, async (t) => {
  const tab = await world.open(t, "native", server, "ada");
  await tab.live();
  const { offline, online } = await network(tab.page);
  await offline();
  assert.equal(await tab.page.evaluate(() => navigator.onLine), false);
  const sent = await server.sendMany("shop/ada", 10);
  assert.deepEqual(await tab.ids.count(10, "notification"), sent);
  assert.deepEqual(tab.states.all, ["live"]);
  await online();
});

test("nor an open stream of fetch", { skip }, async (t) => {
  const tab = await world.open(t, "native", server, "none");
  await tab.page.evaluate(async (url) => {
    const { body } = await fetch(url);
    const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
    void (async () => {
      let text = "";
      for (;;) {
        const { done, value = "" } = await reader.read();
        text += value;
        await window.report("text", done ? "the end" : text);
      }
    })();
  }, `${server.url}/api/notifications/subscribe/shop/bob`);
  await tab.told.until((all) => all.some(([, text]) => String(text).includes("tidings.live")), "live");
  const { offline } = await network(tab.page);
  await offline();
  const { id } = await server.send("shop/bob", "offline");
  await tab.told.until((all) => all.some(([, text]) => String(text).includes(id)), "what was sent");
});

test("but it refuses a new one, from which EventSource comes back by itself", { skip }, async (t) => {
  const tab = await world.open(t, "native", server, "cy");
  await tab.live();
  const { offline, online } = await network(tab.page);
  await offline();
  await tab.page.evaluate(() => window.source.close());
  await tab.start();
  await tab.states.until((all) => all.filter((state) => state === "reconnecting").length >= 2, "two attempts that failed");
  const sent = await server.sendMany("shop/cy", 5);
  assert.deepEqual(tab.ids.all, []);
  await online();
  assert.deepEqual(await tab.ids.count(5, "notification"), sent);
});
