// A real Chromium, with pages of an origin of their own.

import { build } from "esbuild";
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium, type Browser as Chromium, type BrowserContext, type Page } from "playwright-core";
import type { Problem } from "@tidings/client";
import type { Start } from "../page/page.js";
import { missing } from "./server.js";
import { Seen, within } from "./wait.js";

const candidates = [process.env["CHROMIUM"], "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = candidates.find((path): path is string => Boolean(path) && existsSync(path as string));

/** For `test(…, { skip })`: false if there is a browser, else why not. */
export const noBrowser = missing(executablePath ? undefined : "no Chromium: install it, or name its program in CHROMIUM");

const ARGUMENTS = [
  "--headless",
  "--remote-debugging-port=0",
  "--no-sandbox", // tests can run as root
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

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

/** A browser with one profile, whose tabs see the same storage, locks and channels. */
export class Browser {
  private constructor(
    private readonly program: ChildProcess,
    private readonly folder: string,
    private readonly chromium: Chromium,
    private readonly pages: Pages,
  ) {}

  static async start(pages: Pages): Promise<Browser> {
    const folder = mkdtempSync(join(tmpdir(), "tidings-browser-"));
    const program = spawn(executablePath as string, [...ARGUMENTS, `--user-data-dir=${folder}`, "about:blank"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    process.once("exit", () => program.kill());
    const address = new Promise<string>((resolve, reject) => {
      let said = "";
      program.stderr?.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        const found = /DevTools listening on (ws:\S+)/.exec(said);
        if (found?.[1]) resolve(found[1]);
      });
      program.once("exit", (code) => reject(new Error(`Chromium ended with ${code}: ${said}`)));
    });
    // Without its defaults, which make every tab look visible; and what is visible is never frozen.
    const endpoint = await within(address, "Chromium's start", 60_000);
    return new Browser(program, folder, await chromium.connectOverCDP(endpoint, { noDefaults: true }), pages);
  }

  get context(): BrowserContext {
    return this.chromium.contexts()[0] as BrowserContext;
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
    await page.exposeFunction("report", (kind: string, value: unknown) => tab.hear(kind, value));
    if (before) await page.addInitScript(before);
    await page.goto(address);
    return tab;
  }

  async stop(): Promise<void> {
    const gone = new Promise((resolve) => this.program.once("exit", resolve));
    const devtools = await this.chromium.newBrowserCDPSession();
    await devtools.send("Browser.close").catch(() => {}); // its end can come before the answer
    await within(gone, "Chromium's end");
    // The last of its processes may still be writing.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}
