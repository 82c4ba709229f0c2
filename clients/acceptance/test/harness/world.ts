// What the tests stand on: a real browser, pages of both kinds for it on an origin of their own, and
// real servers that answer to that origin. Whatever a test opens goes when that test ends.

import type { TestContext } from "node:test";
import { Browser, noBrowser, Pages, type BrowserTab } from "../../../typescript/build/harness/browser.js";
import { Proxy } from "../../../typescript/build/harness/proxy.js";
import { noServer, Server } from "../../../typescript/build/harness/server.js";

/** For `test(…, { skip })`: false if all is there, else what is missing. */
export const skip = noServer || noBrowser;

/** What a tab has: the browser's own EventSource, or the package. */
export type Kind = "native" | "package";
const PATHS: Record<Kind, string> = { native: "/native", package: "/" };

export class World {
  readonly #servers: Server[] = [];

  private constructor(
    readonly pages: Pages,
    readonly browser: Browser,
  ) {}

  static async start(): Promise<World> {
    const pages = await Pages.start({ [PATHS.native]: `${import.meta.dirname}/../page/native.js` });
    return new World(pages, await Browser.start(pages));
  }

  async stop(): Promise<void> {
    await this.browser.stop();
    for (const server of this.#servers) await server.stop();
    this.pages.stop();
  }

  /** The same pages in a browser of its own, in which no other test decides which tab is in front. */
  async apart(t: TestContext): Promise<World> {
    const browser = await Browser.start(this.pages);
    t.after(() => browser.stop());
    return new World(this.pages, browser);
  }

  /** A server that stays until the end. */
  async server(settings: Record<string, string> = {}): Promise<Server> {
    const server = await Server.start({ TIDINGS_CORS_ORIGINS: this.pages.origin(), ...settings });
    this.#servers.push(server);
    return server;
  }

  /** A way to a server that can be broken. */
  async proxy(t: TestContext, server: Server): Promise<Proxy> {
    const proxy = await Proxy.start(() => server.port);
    t.after(() => proxy.stop());
    return proxy;
  }

  /** A tab that has subscribed, in front of the others. */
  async open(t: TestContext, kind: Kind, { url }: { url: string }, user: string): Promise<BrowserTab> {
    const tab = await this.browser.open({ url, user }, { path: PATHS[kind] });
    t.after(() => tab.page.close());
    return tab;
  }
}
