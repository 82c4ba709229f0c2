// A real Chromium, started as the distribution installs it.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type BrowserContext } from "playwright-core";
import { missing } from "./server.js";
import { DEADLINE, within } from "./wait.js";

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
  // After five minutes the timers of a hidden tab would run once a minute: longer than tests wait.
  "--disable-features=IntensiveWakeUpThrottling",
];

/** A browser with one profile, whose tabs see the same storage, locks and channels. */
export class Chromium {
  private constructor(
    private readonly program: ChildProcess,
    private readonly folder: string,
    private readonly browser: Browser,
  ) {}

  /**
   * By default only the tab in front is visible, as for a person, and the others can be frozen. With
   * `allVisible` each tab is like one in a window of its own.
   */
  static async start({ allVisible = false } = {}): Promise<Chromium> {
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
    const endpoint = await within(address, "Chromium's start");
    // Playwright's defaults make every tab look visible; and what is visible is never frozen.
    const browser = await chromium.connectOverCDP(endpoint, { noDefaults: !allVisible, timeout: DEADLINE });
    for (const context of browser.contexts()) context.setDefaultTimeout(DEADLINE);
    return new Chromium(program, folder, browser);
  }

  get context(): BrowserContext {
    return this.browser.contexts()[0] as BrowserContext;
  }

  async stop(): Promise<void> {
    const gone = new Promise((resolve) => this.program.once("exit", resolve));
    const devtools = await this.browser.newBrowserCDPSession();
    await devtools.send("Browser.close").catch(() => {}); // its end can come before the answer
    await within(gone, "Chromium's end");
    // The last of its processes may still be writing.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}
