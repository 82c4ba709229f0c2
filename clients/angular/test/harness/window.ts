// One window of the application, seen as a person sees it: by words, roles and the focus.

import assert from "node:assert/strict";
import type { BrowserContext, Locator, Page } from "playwright-core";
import { within } from "../../../typescript/test/harness/wait";

const DEADLINE = 90_000; // ms; generous, because machines that test are slow

/** What the page said to screen readers, each also if the next followed at once. */
declare const heard: string[];

export interface View {
  width?: number;
  height?: number;
  dark?: boolean;
  calm?: boolean;
}

export class Window {
  /** What the page wrote to the console as an error, besides failed requests, and what it threw. */
  readonly errors: string[] = [];

  private constructor(readonly page: Page) {}

  static async open(context: BrowserContext, address: string, view: View = {}): Promise<Window> {
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE);
    const window = new Window(page);
    page.on("pageerror", (error) => window.errors.push(String(error)));
    await page.addInitScript(listen);
    await window.view(view);
    await page.goto(address);
    return window;
  }

  /** Size and preferences. */
  async view({ width = 1280, height = 800, dark = false, calm = false }: View): Promise<void> {
    await this.page.setViewportSize({ width, height });
    await this.page.emulateMedia({ colorScheme: dark ? "dark" : "light", reducedMotion: calm ? "reduce" : "no-preference" });
  }

  /** Ids in the list, from top to bottom. */
  ids(): Promise<string[]> {
    return this.page.locator("article").evaluateAll((all) => all.map(({ id }) => id));
  }

  item(id: string): Locator {
    return this.page.locator(`[id="${id}"]`);
  }

  button(name: string | RegExp): Locator {
    return this.page.getByRole("button", { name });
  }

  /** This one comes to be on top. */
  async newest(id: string): Promise<void> {
    await this.page.waitForFunction((id) => document.querySelector("article")?.id === id, id);
  }

  /** The list is exactly this, newest first, as soon as the newest is there. */
  async shows(ids: readonly string[]): Promise<void> {
    if (ids[0]) await this.newest(ids[0]);
    assert.deepEqual(await this.ids(), ids);
  }

  /** How the connection stands becomes this. */
  async says(words: string): Promise<void> {
    await this.page.locator("app-connection", { hasText: words }).waitFor();
  }

  async live(): Promise<void> {
    await this.says("Up to date");
  }

  /** The bell's number becomes this, for the eye and for the ear; all at once, as another may follow. */
  async unread(count: number): Promise<void> {
    const label = count ? `${count} unread: go to the newest` : "No unread notifications";
    const title = count ? `(${count}) Tidings` : "Tidings";
    await this.page.waitForFunction(
      ([label, title, badges]) =>
        document.querySelector("app-bell button")?.getAttribute("aria-label") === label &&
        document.title === title &&
        document.querySelectorAll(".badge").length === badges,
      [label, title, count ? 1 : 0] as const,
    );
  }

  /**
   * From now on the page's waits that have grown never end by themselves, so that it is seen who ends
   * them; resolves when it is in one.
   */
  async waitsForEver(): Promise<void> {
    const waits = this.page.evaluate(() => new Promise<void>((resolve) => {
      const real = setTimeout;
      const never = () => (resolve(), 0);
      globalThis.setTimeout = ((then: () => void, ms = 0) => (ms < 2_500 ? real(then, ms) : never())) as typeof setTimeout;
    }));
    await within(waits, "a wait that has grown");
  }

  /** What pops up stays until it is taken away. */
  async keepsToasts(): Promise<void> {
    await this.page.evaluate(() => {
      const real = setTimeout;
      globalThis.setTimeout = ((then: () => void, ms = 0) => (ms === 8_000 ? 0 : real(then, ms))) as typeof setTimeout;
    });
  }

  /** Screen readers are told exactly this, or something like it, after what was asked for last. */
  async announces(words: string | RegExp): Promise<void> {
    await this.page.waitForFunction((words) => {
      const at = heard.findIndex((said) => (typeof words === "string" ? said === words : words.test(said)));
      return heard.splice(0, at + 1).length > 0;
    }, words);
  }

  /** What has the focus, as a screen reader would name it. */
  focused(): Promise<string> {
    return this.page.evaluate(() => {
      const element = document.activeElement as HTMLElement;
      const label = element.getAttribute("aria-label") ?? (element as HTMLInputElement).labels?.[0]?.textContent ?? element.textContent ?? "";
      return `${element.tagName.toLowerCase()}: ${label.trim().replace(/\s+/g, " ")}`;
    });
  }

  /** The focus comes to be on this. */
  async focuses(name: string | RegExp): Promise<void> {
    const deadline = performance.now() + DEADLINE;
    let now = await this.focused();
    while (!is(now, name) && performance.now() < deadline) {
      await this.page.evaluate(() => new Promise(requestAnimationFrame));
      now = await this.focused();
    }
    assert.ok(is(now, name), `${now} has the focus, not ${name}`);
  }

  /** Presses Tab until something with this name has the focus; what was passed on the way. */
  async tabTo(name: string | RegExp): Promise<string[]> {
    const passed: string[] = [];
    for (let pressed = 0; pressed < 60; pressed++) {
      await this.page.keyboard.press("Tab");
      const now = await this.focused();
      if (is(now, name)) return passed;
      passed.push(now);
    }
    assert.fail(`Tab does not lead to ${name}, but to ${passed.join(" · ")}`);
  }

  async close(): Promise<void> {
    await this.page.close();
    assert.deepEqual(this.errors, [], "what the page threw");
  }
}

function is(name: string, wanted: string | RegExp): boolean {
  return typeof wanted === "string" ? name === wanted : wanted.test(name);
}

/** Runs in the page before anything else of it. */
function listen(): void {
  const all: string[] = Object.assign(globalThis, { heard: [] }).heard;
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const said = target.parentElement?.closest("app-announcements") && target.textContent?.trim();
      if (said) all.push(said);
    }
  }).observe(document, { subtree: true, childList: true, characterData: true });
}
