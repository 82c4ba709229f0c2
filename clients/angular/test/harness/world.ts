// What a test of the application stands on: a real server, the built application on another origin,
// a real browser; and for each test a user and a proxy of its own.

import type { TestContext } from "node:test";
import { Chromium, noBrowser } from "../../../typescript/test/harness/chromium";
import { Proxy } from "../../../typescript/test/harness/proxy";
import { noServer, Server } from "../../../typescript/test/harness/server";
import { Site } from "./site";
import { Window, type View } from "./window";

/** For `test(…, { skip })`: false if all is there, else what is missing. */
export const skip = noServer || noBrowser;

/** What is asked for in the page's address. */
type Place = Partial<Record<"url" | "app" | "user" | "topics", string>>;

export class World {
  #apps = 0;
  #other: Promise<Server> | undefined;

  private constructor(
    readonly site: Site,
    readonly server: Server,
    readonly chromium: Chromium,
  ) {}

  static async start(): Promise<World> {
    const site = await Site.start();
    const server = await Server.start({ TIDINGS_CORS_ORIGINS: site.origin() });
    return new World(site, server, await Chromium.start({ allVisible: true }));
  }

  async stop(): Promise<void> {
    await this.chromium.stop();
    await this.server.stop();
    await (await this.#other)?.stop();
    this.site.stop();
  }

  /** A server with another database. */
  other(): Promise<Server> {
    return (this.#other ??= Server.start({ TIDINGS_CORS_ORIGINS: this.site.origin() }));
  }

  /** An app of its own, a proxy in front of the server, and windows that are closed in the end. */
  async setting(t: Pick<TestContext, "after">, { server = this.server, app = `shop-${++this.#apps}`, user = "ada" } = {}) {
    let behind = server;
    const proxy = await Proxy.start(() => behind.port);
    /** From now on another server answers in its place, as after a disaster. */
    const replace = (by: Server) => {
      behind = by;
      proxy.cut();
    };
    const windows: Window[] = [];
    t.after(async () => {
      for (const window of windows) await window.close();
      await proxy.stop();
    });
    const open = async (view: View = {}, place: Place = {}, host?: string) => {
      const asked = Object.entries({ url: proxy.url, app, user, ...place });
      const query = new URLSearchParams(asked.filter(([, value]) => value));
      const window = await Window.open(this.chromium.context, `${this.site.origin(host)}/?${query}`, view);
      windows.push(window);
      return window;
    };
    return { server, proxy, replace, app, user, open, to: `${encodeURIComponent(app)}/${encodeURIComponent(user)}` };
  }
}

/** What a test has of the world. */
export type Setting = Awaited<ReturnType<World["setting"]>>;
