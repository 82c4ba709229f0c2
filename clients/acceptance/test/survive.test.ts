// Whatever happens to the server, the network or the page: a tab with the browser's own EventSource
// and a tab with the package each get exactly what is in the table, once and in order, while sends go
// on. All of it happens at the same time in one browser, each to a user of its own.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { Gap } from "@tidings/client";
import type { Server } from "../../typescript/build/harness/server.js";
import { network } from "./harness/network.js";
import { Pair } from "./harness/pair.js";
import { skip, World } from "./harness/world.js";

const LONGEST_PAUSE = 120_000; // ms; nobody tells a page that a proxy is back, and the package waits for up to 45 s

let world: World;
let server: Server;
let mortal: Server; // the one that is killed
let brief: Server; // the one that forgets

before(async () => {
  if (skip) return;
  world = await World.start();
  // As by default: with more of them, a tab that is behind would take its stream for dead and open another.
  const heartbeat = { TIDINGS_HEARTBEAT: "10s" };
  // And so seldom that a cursor stays where the last notification left it.
  const seldom = { TIDINGS_HEARTBEAT: "60s" };
  [server, mortal, brief] = await Promise.all([world.server(heartbeat), world.server(heartbeat), world.server(seldom)]);
});
after(() => world?.stop());

describe("nothing is lost and nothing doubled", { concurrency: true }, () => {
  test("while the server is killed and started again, twice", { skip }, async (t) => {
    const pair = await Pair.open(t, world, mortal);
    await pair.through(async (sending) => {
      for (const streams of [2, 3]) {
        await mortal.end("SIGKILL");
        await pair.each(({ tab }) => tab.states.until((all) => all.at(-1) === "reconnecting", "reconnecting"));
        await sending.failed.count(streams - 1, "send that failed"); // they go on while it is away
        await mortal.run();
        await pair.each(({ proxy }) => proxy.streams.count(streams, "stream"));
        await sending.more(5);
        await pair.each(({ tab }) => tab.live());
      }
    });
  });

  for (const seconds of [10, 60]) {
    test(`while the network is away for ${seconds} s, cut by a proxy`, { skip }, async (t) => {
      const pair = await Pair.open(t, world, server);
      await pair.through(async () => {
        await pair.each(({ proxy }) => proxy.break());
        await pair.each(({ tab }) => tab.states.until((all) => all.at(-1) === "reconnecting", "reconnecting"));
        await pause(seconds * 1000);
        await pair.each(({ proxy }) => proxy.mend());
        await pair.each(({ tab }) => tab.live(LONGEST_PAUSE));
      });
    });

    // Which does not cut what is open (offline.test.ts), so that the proxy does.
    test(`while the browser is offline for ${seconds} s, by the DevTools protocol, and its streams are cut`, { skip }, async (t) => {
      const pair = await Pair.open(t, world, server);
      await pair.through(async (sending) => {
        const networks = await Promise.all(pair.watchers.map(({ tab }) => network(tab.page)));
        for (const each of networks) await each.offline();
        await pair.each(({ proxy }) => proxy.cut());
        await pause(seconds * 1000);
        const got = pair.watchers.map(({ tab, proxy }) => [tab.states.all.at(-1) !== "live", proxy.streams.all.length]);
        assert.deepEqual(got, [[true, 1], [true, 1]], "no connection left the browser");
        for (const each of networks) await each.online();
        await sending.more(5);
        await pair.each(({ tab }) => tab.live());
      });
    });
  }

  test("while a proxy cuts every 20 s", { skip }, async (t) => {
    const pair = await Pair.open(t, world, server);
    await pair.through(async () => {
      for (const streams of [2, 3, 4]) {
        await pause(20_000);
        await pair.each(({ proxy }) => proxy.cut());
        await pair.each(({ proxy }) => proxy.streams.count(streams, "stream"));
      }
    });
  });

  test("while the pages are loaded anew, three times", { skip }, async (t) => {
    const pair = await Pair.open(t, world, server);
    await pair.through(async (sending) => {
      for (const streams of [2, 3, 4]) {
        await pair.each(({ tab }) => tab.reload());
        await pair.each(({ proxy }) => proxy.streams.count(streams, "stream"));
        await sending.more(5);
      }
    });
  });

  test("while the pages are frozen", { skip }, async (t) => {
    // What is visible is never frozen; and when the tab in front is closed, by whatever test, another is.
    const alone = await world.apart(t);
    const pair = await Pair.open(t, alone, server);
    await alone.browser.context.newPage();
    await pair.through(async () => {
      await pair.each(({ tab }) => tab.page.evaluate(() => document.addEventListener("freeze", () => void window.report("frozen", true))));
      await pair.each(({ tab }) => tab.lifecycle("frozen"));
      await pair.each(({ tab }) => tab.told.until((all) => all.some(([kind]) => kind === "frozen"), "freeze"));
      const before = pair.watchers.map(({ tab }) => tab.ids.all.length);
      await pause(30_000);
      const during = pair.watchers.map(({ tab }) => tab.ids.all.length);
      assert.deepEqual(during, before, "frozen pages run nothing");
      await pair.each(({ tab }) => tab.lifecycle("active"));
    });
  });

  test("but what was removed before it was seen, and that is told in its place", { skip }, async (t) => {
    const pair = await Pair.open(t, world, brief);
    const away = async (action: () => Promise<unknown>) => {
      await pair.each(({ proxy }) => proxy.break());
      await action();
      await pair.each(({ proxy }) => proxy.mend());
    };
    let seen: string[] = [];
    await away(async () => (seen = await hoursAgo(pair, 2, 3)));
    await pair.each(({ tab }) => tab.ids.count(3, "notification"));
    let missed: string[] = [];
    await away(async () => {
      missed = await hoursAgo(pair, 2, 3);
      await brief.sql("insert into tidings.app_setting (app, retention) values ('shop', '1 hour')");
      await brief.command("prune");
      assert.deepEqual(await brief.stored(pair.to), []);
    });
    await pair.each(async ({ tab }) => {
      const told = (await tab.told.count(1, "gap")) as [string, Gap][];
      const gaps = told.map(([kind, { after, resumes_after, reason }]) => [kind, after, resumes_after, reason]);
      assert.deepEqual(gaps, [["gap", seen.at(-1), missed.at(-1), "expired"]]);
      assert.deepEqual(tab.ids.all, seen);
      await tab.live();
    });
    await pair.expectEverything(await brief.sendMany(pair.to, 5), seen);
  });
});

/**
 * Rows as they were sent so long ago; their ids. The sequence moves along: with rows above it, the
 * database would be taken for one that went back.
 */
async function hoursAgo({ server, user, to }: Pair, hours: number, count: number): Promise<string[]> {
  const before = await server.stored(to);
  await server.sql(`
    insert into tidings.notification (id, app, audience, data, created_at)
    select tidings.event_id(((extract(epoch from clock_timestamp() - interval '${hours} hours') * 1000)::bigint << 15) + n, 0, 1),
      'shop', 'user:${user}', '{"n":1}', clock_timestamp() - interval '${hours} hours'
    from generate_series(1, ${count}) n;
    select setval('tidings.position', (select max(tidings.position(id)) from tidings.notification))`);
  return (await server.stored(to)).filter((id) => !before.includes(id));
}
