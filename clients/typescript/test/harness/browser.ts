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

/** Serves pages, each of one script, under two origins: 127.0.0.1, and localhost. */
export class Pages {
  private constructor(private readonly listener: HttpServer) {}

  /** The package's own test page is at `/`; others are named by path, each with its script's file. */
  static async start(others: Record<string, string> = {}): Promise<Pages> {
    const scripts = new Map<string, string>();
    for (const [path, file] of Object.entries({ "/": `${root}/test/page/page.ts`, ...others })) {
      const built = await build({ entryPoints: [file], bundle: true, format: "esm", write: false });
      scripts.set(path, built.outputFiles[0]?.text ?? "");
    }
    const listener = createServer((request, answer) => {
      const [path = "", script] = (request.url ?? "").split(/(\?script)$/);
      answer.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" });
      answer.end(script ? scripts.get(path) : `<!doctype html><script type="module" src="${path}?script"></script>`);
    });
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return new Pages(listener);
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

  async live(ms?: number): Promise<void> {
    await this.states.until((all) => all.at(-1) === "live", "live", ms);
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
  readonly #tabs = new WeakMap<Page, BrowserTab>();

  private constructor(
    private readonly chromium: Chromium,
    private readonly pages: Pages,
  ) {}

  static async start(pages: Pages): Promise<Browser> {
    const browser = new Browser(await Chromium.start(), pages);
    // Once for all tabs: Playwright loses functions that are exposed to several new pages at a time.
    await browser.context.exposeBinding("report", ({ page }, kind: string, value: unknown) => browser.#tabs.get(page)?.hear(kind, value));
    return browser;
  }

  get context(): BrowserContext {
    return this.chromium.context;
  }

  /** Opens a tab, which becomes the visible one, and subscribes in it. */
  async open(options: Start, { host, path = "/", before }: { host?: string; path?: string; before?: () => void } = {}): Promise<BrowserTab> {
    const tab = await this.openAt(this.pages.origin(host) + path, options, before);
    await tab.start();
    return tab;
  }

  /** Opens a tab anywhere, and only listens to it. */
  async openAt(address: string, options: Start = { url: address, user: "" }, before?: () => void): Promise<BrowserTab> {
    const page = await this.context.newPage();
    const tab = new BrowserTab(page, options);
    page.on("pageerror", (error) => tab.told.push(["thrown", String(error)]));
    this.#tabs.set(page, tab);
    if (before) await page.addInitScript(before);
    await page.goto(address);
    return tab;
  }

  stop(): Promise<void> {
    return this.chromium.stop();
  }
}
