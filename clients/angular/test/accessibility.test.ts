// Every state for those who use a keyboard, a screen reader, a small window or other colours.

import axe from "axe-core";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { STATES } from "./harness/states";
import type { Window } from "./harness/window";
import { skip, World } from "./harness/world";

let world: World;
before(async () => {
  if (!skip) world = await World.start();
});
after(() => world?.stop());

/** What axe finds, as one line each. */
async function findings({ page }: Window): Promise<string[]> {
  await page.evaluate(axe.source);
  // No animation half way, whose colours are nobody's. What is taken away ends its own by an error.
  const { violations } = await page.evaluate(async () => {
    await Promise.allSettled(document.getAnimations().map(({ finished }) => finished));
    return (window as unknown as { axe: typeof axe }).axe.run(document, { resultTypes: ["violations"] });
  });
  return violations.flatMap(({ id, impact, help, nodes }) => nodes.map(({ target, any }) => `${impact} ${id}: ${help}: ${target} ${any[0]?.message ?? ""}`));
}

for (const { name, view = {}, reach } of STATES) {
  test(`axe finds nothing in the state "${name}", light and dark`, { skip }, async (t) => {
    const window = await reach(await world.setting(t), world, view);
    for (const dark of [false, true]) {
      await window.view({ ...view, dark });
      assert.deepEqual(await findings(window), [], dark ? "dark" : "light");
    }
  });
}

test("axe looks: it finds what is made wrong", { skip }, async (t) => {
  const { open } = await world.setting(t);
  const window = await open();
  await window.live();
  await window.page.evaluate(() => {
    document.documentElement.style.setProperty("--muted", "#bbb");
    document.querySelector("app-bell button")?.removeAttribute("aria-label");
  });
  const found = (await findings(window)).join();
  assert.match(found, /serious color-contrast/);
  assert.match(found, /critical button-name/);
});

test("what is unread and how it stands is seen in forced colours too", { skip }, async (t) => {
  const { open, server, to, proxy } = await world.setting(t);
  await server.sendMany(to, 1);
  const window = await open();
  await window.live();
  await window.page.emulateMedia({ forcedColors: "active" });
  const dots = () =>
    window.page.locator(".unread, app-connection p").evaluateAll((all) =>
      all.map((element) => {
        const { backgroundColor, borderTopStyle } = getComputedStyle(element, "::before");
        return backgroundColor === getComputedStyle(element).color ? "full" : borderTopStyle === "solid" ? "ring" : "none";
      }),
    );
  assert.deepEqual(await dots(), ["full", "full"]);
  proxy.break();
  await window.says("Reconnecting");
  assert.deepEqual(await dots(), ["ring", "full"]);
});

test("nothing is wider than the narrowest window, whatever is shown", { skip }, async (t) => {
  for (const { name, reach } of STATES.filter(({ name }) => /long|right|arriving|error/.test(name))) {
    const window = await reach(await world.setting(t), world, { width: 320, height: 640 });
    const [needs, has] = await window.page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.equal(needs, has, name);
  }
});

test("what has the focus does not lie under the header, nor beyond the window", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const sent = await server.sendMany(to, 12);
  const window = await open({ width: 640, height: 400 }); // 1280 by 800, at 200 %
  await window.shows([...sent].reverse());
  const { page } = window;
  await page.locator(".archive").last().focus();
  for (const key of ["Shift+Tab", "Tab"]) {
    for (let pressed = 0; pressed < 22; pressed++) {
      await page.keyboard.press(key);
      const [top, from, bottom, to] = await page.evaluate(async () => {
        // What comes into view is laid out, and may move the rest.
        for (let frames = 0; frames < 2; frames++) await new Promise(requestAnimationFrame);
        const { top, bottom } = (document.activeElement as Element).getBoundingClientRect();
        return [top, document.querySelector("header")?.getBoundingClientRect().bottom ?? 0, bottom, innerHeight];
      });
      assert.ok(top >= from && bottom <= to, `${await window.focused()}: ${top} to ${bottom} of ${from} to ${to}, after ${pressed + 1} × ${key}`);
    }
  }
});

test("everything is done with the keyboard alone, and the focus is seen and never lost", { skip }, async (t) => {
  const { open, server, to, proxy, app, user } = await world.setting(t);
  const sent = await server.sendMany(to, 35);
  const window = await open({}, { url: "", app: "", user: "" });
  const { keyboard } = window.page;
  await window.tabTo("a: Skip to the notifications");
  await window.tabTo("input: App");
  await keyboard.type(app);
  await window.tabTo("input: User");
  await keyboard.type(user);
  await window.tabTo("input: Server");
  await keyboard.type(proxy.url); // what is in it is selected
  await keyboard.press("Enter");
  await window.focuses("h2: Notifications");
  await window.live();
  await window.unread(35);

  await window.tabTo("button: Mark all as read");
  await window.tabTo("button: Mark as read: 34");
  await keyboard.press("Space");
  await window.announces("Marked as read");
  await window.unread(34);
  await window.focuses("button: Mark as unread: 34");
  await window.tabTo("button: Archive: 34");
  await keyboard.press("Enter");
  await window.announces("Archived");
  await window.focuses("button: Archive: 33");
  await keyboard.press("Enter");
  await window.focuses("button: Archive: 32");
  await window.unread(33);

  await window.page.evaluate(() => scrollTo(0, 0));
  await keyboard.press("Control+Home");
  await window.button(/unread: go to the newest/).focus();
  await keyboard.press("Enter");
  await window.focuses(/^article: Unread: 32.* Mark as read: 32 Archive: 32$/);
  const outline = await window.page.evaluate(() => getComputedStyle(document.activeElement as Element).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  assert.equal(sent.length, 35);
});
