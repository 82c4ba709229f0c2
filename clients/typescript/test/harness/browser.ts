// Tabs of a real Chromium, with pages of an origin of their own.

import { build } from "esbuild";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import type { BrowserContext, Page } from "playwright-core";
import type { Problem } from "@tidings/client";
import type { Start } from "../page/page.js";
import { Chromium } from "./chromium.js";
import { Seen, within } from "./wait.js";

export { noBrowser } from "./chromium.js";

const root = resolve(import.meta.dirname, "../..");

/** Serves the page, under two origins: 127.0.0.1, and localhost. */
export class Pages {
  private constructor(
    private readonly listener: HttpServer,
    private readonly script: string,
  ) {}

  static async start(): Promise<Pages> {
    const built = await build({ entryPoints: [`${root}/test/page/page.ts`], bundle: true, format: "esm", write: false });
    const pages: Pages = new Pages(
      createServer((request, answer) => {
        const script = request.url === "/page.js";
        answer.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" });
        answer.end(script ? pages.script : `<!doctype html><script type="module" src="/page.js"></script>`);
      }),
      built.outputFiles[0]?.text ?? "",
    );
    await new Promise<void>((resolve) => pages.listener.listen(0, "127.0.0.1", resolve));
    return pages;
  }

  origin(host = "127.0.0.1"): string {
    return `http://${host}:${(this.listener.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.listener.closeAllConnections();
    this.listener.close();
  }
}

/** One tab, and what it told. */
export class BrowserTab {
  readonly ids = new Seen<string>();
  readonly states = new Seen<string>();
  readonly problems = new Seen<Problem>();
  readonly told = new Seen<[string, unknown]>();

  constructor(
    readonly page: Page,
    private readonly options: Start,
  ) {}

  async start(): Promise<void> {
    await within(
      this.page.evaluate((options) => window.start(options), this.options),
      "start",
    );
  }

  async live(): Promise<void> {
    await this.states.until((all) => all.at(-1) === "live", "live");
  }

  /** Reloads, and subscribes from the cursor that was kept. */
  async reload(): Promise<void> {
    await this.page.reload();
    this.options.history = false;
    await this.start();
  }

  /** Freezes or thaws the page, as browsers do with tabs in the background. */
  async lifecycle(state: "frozen" | "active"): Promise<void> {
    const devtools = await this.page.context().newCDPSession(this.page);
    await within(devtools.send("Page.setWebLifecycleState", { state }), state);
    await devtools.detach();
  }

  hear(kind: string, value: unknown): void {
    if (kind === "got") for (const id of (value as string[]).slice(this.ids.all.length)) this.ids.push(id);
    else if (kind === "state") this.states.push(value as string);
    else if (kind === "problem") this.problems.push(value as Problem);
    else this.told.push([kind, value]);
  }
}

/** A browser, and the pages that its tabs open. */
export class Browser {
  private constructor(
    private readonly chromium: Chromium,
    private readonly pages: Pages,
  ) {}

  static async start(pages: Pages): Promise<Browser> {
    return new Browser(await Chromium.start(), pages);
  }

  get context(): BrowserContext {
    return this.chromium.context;
  }

  /** Opens a tab, which becomes the visible one, and subscribes in it. */
  async open(options: Start, { host, before }: { host?: string; before?: () => void } = {}): Promise<BrowserTab> {
    const page = await this.context.newPage();
    const tab = new BrowserTab(page, options);
    await page.exposeFunction("report", (kind: string, value: unknown) => tab.hear(kind, value));
    if (before) await page.addInitScript(before);
    await page.goto(this.pages.origin(host));
    await tab.start();
    return tab;
  }

  stop(): Promise<void> {
    return this.chromium.stop();
  }
}
