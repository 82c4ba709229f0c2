// A user with two tabs: one has the browser's own EventSource, the other one the package. Each is
// behind a proxy of its own, so that what happened to which connection is known.

import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { BrowserTab } from "../../../typescript/build/harness/browser.js";
import type { Proxy } from "../../../typescript/build/harness/proxy.js";
import type { Server } from "../../../typescript/build/harness/server.js";
import { Sending } from "./sending.js";
import type { Kind, World } from "./world.js";

/** One tab and the way to the server that is its own. */
export interface Watcher {
  kind: Kind;
  tab: BrowserTab;
  proxy: Proxy;
}

let users = 0;

export class Pair {
  readonly user = `pair-${++users}`;
  readonly to = `shop/${this.user}`;
  readonly watchers: Watcher[] = [];

  private constructor(
    private readonly t: TestContext,
    readonly server: Server,
  ) {}

  /** Opens both tabs, and waits until both are live. */
  static async open(t: TestContext, world: World, server: Server): Promise<Pair> {
    const pair = new Pair(t, server);
    for (const kind of ["native", "package"] as const) {
      const proxy = await world.proxy(t, server);
      const tab = await world.open(t, kind, proxy, pair.user);
      pair.watchers.push({ kind, tab, proxy });
      await tab.live();
    }
    return pair;
  }

  each(action: (watcher: Watcher) => unknown): Promise<unknown> {
    return Promise.all(this.watchers.map(action));
  }

  /** Sends all the time while something happens, and then a little more. Then looks at what both have. */
  async through(what: (sending: Sending) => Promise<void>): Promise<void> {
    const sending = new Sending(this.server, this.to);
    try {
      await this.each(({ tab }) => tab.ids.count(5, "notification"));
      await what(sending);
      await sending.more(5);
    } finally {
      await sending.stop();
    }
    await this.expectEverything(sending.answered.all);
    this.t.diagnostic(`${sending.answered.all.length} sent, ${sending.failed.all.length} not answered, ${this.streams()}`);
  }

  /** Both have exactly what is in the table, in its order; and all that was answered is in the table. */
  async expectEverything(answered: readonly string[], after: readonly string[] = []): Promise<void> {
    // Whatever would come twice comes before this one.
    const { id: last } = await this.server.send(this.to, "the last");
    const stored = await this.server.stored(this.to);
    assert.deepEqual(stored.filter((id) => answered.includes(id)), answered);
    const expected = [...after, ...stored];
    await this.each(({ kind, tab }) => tab.ids.until((all) => all.includes(last), `the last one of ${expected.length} in the ${kind} tab`));
    // By place and not by id, which says what went wrong.
    const places = (ids: readonly string[]) => ids.map((id) => expected.indexOf(id)).join();
    for (const { kind, tab } of this.watchers) assert.equal(places(tab.ids.all), places(expected), `the ${kind} tab`);
  }

  /** How many streams each has had: a fault that no connection noticed has shown nothing. */
  streams(): string {
    return this.watchers.map(({ kind, proxy }) => `${kind}: ${proxy.streams.all.length} streams`).join(", ");
  }
}
