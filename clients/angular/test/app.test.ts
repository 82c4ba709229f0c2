// The application in a real browser, on another origin than the real server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server } from "../../typescript/test/harness/server";
import { skip, World } from "./harness/world";

let world: World;
before(async () => {
  if (!skip) world = await World.start();
});
after(() => world?.stop());

const newestFirst = (ids: readonly string[]) => [...ids].reverse();

test("what is sent appears at once on top, is counted, and is said", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const window = await open();
  await window.live();
  await window.page.getByText("Nothing yet").waitFor();
  await window.keepsToasts();
  const first = await server.send(to, { text: "The kettle boils", from: "Kitchen" }, "tea.ready");
  await window.shows([first.id]);
  await window.unread(1);
  await window.announces("New notification: Kitchen: Tea ready: The kettle boils");
  const toast = window.page.getByRole("region", { name: "Just arrived" });
  await toast.getByText("The kettle boils").waitFor();
  const second = await server.send(to, "and whistles");
  await window.shows([second.id, first.id]);
  await window.unread(2);
});

test("the list is the history and what comes, each once, and grows while somebody scrolls", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const sent = await server.sendMany(to, 100);
  const window = await open();
  await window.live();
  assert.ok((await window.ids()).length < 100, "a page or two at first");
  sent.push(...(await server.sendMany(to, 3)));
  await window.newest(sent[102] as string);
  const some = await window.ids();
  assert.deepEqual(some, newestFirst(sent).slice(0, some.length));
  const end = window.page.getByText("These are all.");
  await window.page.mouse.move(800, 500);
  const sending = server.sendMany(to, 10);
  for (let shown = 0; !(await end.isVisible()); ) {
    await window.page.mouse.wheel(0, 100_000);
    await window.page.waitForFunction((shown) => document.querySelectorAll("article").length > shown || document.querySelector(".end"), shown);
    shown = (await window.ids()).length;
  }
  sent.push(...(await sending));
  await window.shows(newestFirst(sent));
  assert.deepEqual(await server.stored(to), sent);
});

test("what is read or archived in one window is so in the other, and the badges agree", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const [one, two, three] = (await server.sendMany(to, 3)) as [string, string, string];
  const desk = await open();
  const phone = await open({ width: 390 });
  for (const window of [desk, phone]) {
    await window.live();
    await window.unread(3);
  }
  await desk.item(two).getByRole("button", { name: "Mark as read" }).click();
  await phone.item(two).getByRole("button", { name: "Mark as unread" }).waitFor();
  for (const window of [desk, phone]) await window.unread(2);
  await phone.item(two).getByRole("button", { name: "Mark as unread" }).click();
  for (const window of [desk, phone]) await window.unread(3);
  await phone.item(one).getByRole("button", { name: "Archive" }).click();
  for (const window of [desk, phone]) {
    await window.unread(2);
    await window.item(one).waitFor({ state: "detached" });
    await window.shows([three, two]);
  }
  await desk.button("Mark all as read").click();
  for (const window of [desk, phone]) {
    await window.unread(0);
    await window.page.locator("article.unread").first().waitFor({ state: "detached" });
  }
  await phone.page.reload();
  await phone.live();
  await phone.unread(0);
  await phone.shows([three, two]);
});

test("a network that is away is said calmly, and everything comes when it is back", { skip }, async (t) => {
  const { open, server, to, proxy } = await world.setting(t);
  const sent = await server.sendMany(to, 2);
  const window = await open();
  await window.live();
  for (let round = 0; round < 2; round++) {
    proxy.break();
    await window.says("Reconnecting. Nothing will be lost.");
    sent.push(...(await server.sendMany(to, 7)));
    proxy.mend();
    await window.live();
    sent.push(...(await server.sendMany(to, 1)));
    await window.shows(newestFirst(sent));
  }
  await window.unread(sent.length);
});

test("a browser without a network says so, and everything comes when it is back", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const window = await open();
  await window.live();
  const sent = await server.sendMany(to, 2);
  await window.shows(newestFirst(sent));
  await window.page.context().setOffline(true);
  t.after(() => window.page.context().setOffline(false));
  await window.says("Offline. Nothing will be lost.");
  sent.push(...(await server.sendMany(to, 5)));
  await window.page.context().setOffline(false);
  await window.live();
  sent.push(...(await server.sendMany(to, 1)));
  await window.shows(newestFirst(sent));
});

test("a server that is killed and started again loses and doubles nothing", { skip }, async (t) => {
  const mortal = await Server.start({ TIDINGS_CORS_ORIGINS: world.site.origin() });
  t.after(() => mortal.stop());
  const { open, to } = await world.setting(t, { server: mortal });
  const sent = await mortal.sendMany(to, 3);
  const window = await open();
  await window.live();
  await mortal.end("SIGKILL");
  await window.says("Reconnecting. Nothing will be lost.");
  await mortal.run();
  sent.push(...(await mortal.sendMany(to, 3)));
  await window.shows(newestFirst(sent));
  await window.live();
  await window.unread(6);
});

test("a window that is opened while the server is away fills when it comes", { skip }, async (t) => {
  const { open, server, to, proxy } = await world.setting(t);
  proxy.break();
  const window = await open();
  await window.says("Waiting for the server…");
  await window.page.getByText("The server cannot be reached").first().waitFor();
  await window.waitsForEver();
  const sent = await server.sendMany(to, 2);
  proxy.mend();
  await window.button("Try again now").click();
  await window.shows(newestFirst(sent));
  await window.focuses("h2: Notifications");
});

const HURRY: Record<string, () => void> = {
  "when somebody looks at it": () => document.dispatchEvent(new Event("visibilitychange", { bubbles: true })),
  "after the machine was asleep, though nobody tells": () => {
    const { now } = Date;
    Date.now = () => now() + 3_600_000;
  },
};
for (const [when, happens] of Object.entries(HURRY)) {
  test(`and it does not wait for long ${when}`, { skip }, async (t) => {
    const { open, server, to, proxy } = await world.setting(t);
    proxy.break();
    const window = await open();
    await window.waitsForEver();
    const sent = await server.sendMany(to, 2);
    proxy.mend();
    await window.page.evaluate(happens);
    await window.shows(newestFirst(sent));
  });
}

test("an origin that the server does not know is refused, and told what to set", { skip }, async (t) => {
  const strict = await Server.start();
  t.after(() => strict.stop());
  const { open, to } = await world.setting(t, { server: strict });
  const sent = await strict.sendMany(to, 2);
  const window = await open({}, {}, "localhost");
  const setting = `TIDINGS_CORS_ORIGINS=${world.site.origin("localhost")}`;
  await window.page.getByRole("heading", { name: "The server does not answer to this page" }).waitFor();
  await window.page.locator("code", { hasText: setting }).waitFor();
  await window.page.getByRole("alert").filter({ hasText: setting }).waitFor({ state: "attached" });
  assert.deepEqual(await window.ids(), [], "the browser let nothing through");

  const [name = "", value = ""] = setting.split("=");
  await window.waitsForEver();
  strict.settings[name] = value;
  await strict.end();
  await strict.run();
  await window.button("Try again now").click();
  await window.shows(newestFirst(sent));
  await window.live();
});

test("what may be missing is said, and what the server has is shown", { skip }, async (t) => {
  const { open, to, server, replace } = await world.setting(t);
  const other = await world.other();
  const sent = await other.sendMany(to, 2);
  await server.sendMany(to, 3); // later, so that the window knows more than the other server ever had
  const window = await open();
  await window.live();
  await window.unread(3);
  replace(other);
  await window.page.getByRole("heading", { name: "Some notifications may be missing" }).waitFor();
  await window.page.getByRole("alert").filter({ hasText: "another database" }).waitFor({ state: "attached" });
  await window.shows(newestFirst(sent));
  await window.unread(2);
  await window.button("I have seen this").press("Enter");
  await window.focuses("h2: Notifications");
  sent.push(...(await other.sendMany(to, 1)));
  await window.shows(newestFirst(sent));
});

test("topics and what is for everyone are in the list, and say for whom they are", { skip }, async (t) => {
  const { open, server, app, user } = await world.setting(t);
  const window = await open({}, { topics: "news, weather" });
  await window.live();
  for (const to of ["everyone", { topic: "weather" }, { topic: "sports" }, { user }]) {
    const body = JSON.stringify({ to, data: "hello" });
    await fetch(`${server.url}/api/notifications/send/${app}`, { method: "POST", headers: { "content-type": "application/json" }, body });
  }
  await window.page.waitForFunction(() => document.querySelectorAll("article").length === 3);
  assert.deepEqual(await window.page.locator(".whom").allTextContents(), ["for weather", "for everyone"]);
  await window.unread(3);
});

test("many at once are few toasts and one announcement, and none moves for who wants no motion", { skip }, async (t) => {
  const { open, server, to, proxy } = await world.setting(t);
  const window = await open({ calm: true });
  await window.live();
  await window.keepsToasts();
  proxy.break();
  await window.says("Reconnecting");
  const sent = await server.sendMany(to, 12);
  proxy.mend();
  await window.shows(newestFirst(sent));
  await window.page.getByText("and 9 more").waitFor();
  const toasts = window.page.locator(".toast");
  assert.equal(await toasts.count(), 3);
  assert.equal(await toasts.first().evaluate((toast) => getComputedStyle(toast).animationName), "none");
  await window.announces(/^\d+ new notifications$/);
  await window.page.keyboard.press("Escape");
  await toasts.first().waitFor({ state: "detached" });
  assert.equal(await toasts.count(), 0);
});

test("what came to one user is not shown to the next", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const window = await open();
  await window.live();
  await window.keepsToasts();
  await server.send(to, "for Ada alone");
  await window.page.locator(".toast", { hasText: "for Ada alone" }).waitFor();
  await window.announces("New notification: for Ada alone");
  await window.button("Change").press("Enter");
  await window.page.getByRole("textbox", { name: "User" }).fill("bob");
  await window.button("Show notifications").press("Enter");
  await window.page.getByText("Nothing yet").waitFor();
  assert.equal(await window.page.locator(".toast").count(), 0);
  assert.doesNotMatch(await window.page.locator("body").innerText(), /for Ada alone/);
});

test("what is sent from the page arrives once, however often it had to be tried", { skip }, async (t) => {
  const { open, server, to, proxy } = await world.setting(t);
  const window = await open();
  await window.live();
  const message = window.page.getByRole("textbox", { name: "Message" });
  await message.fill(`{"title": "Hello", "text": "to myself"}`);
  await window.page.getByRole("textbox", { name: "Event" }).fill("greeting");
  // The server gets it, and its answer is lost with the connection.
  await window.page.route("**/send/*", async (route) => {
    await route.fetch();
    proxy.break();
    await route.abort("connectionreset");
  });
  await message.press("Control+Enter");
  await window.announces(/^The server did not confirm this\. /);
  await window.page.locator(".toast", { hasText: "The server did not confirm this" }).waitFor();
  assert.equal(await message.inputValue(), `{"title": "Hello", "text": "to myself"}`, "what was written is kept");
  assert.equal((await server.stored(to)).length, 1);
  await window.page.unroute("**/send/*");
  proxy.mend();
  await message.press("Control+Enter");
  await window.announces("Sent");
  assert.equal(await message.inputValue(), "");
  await window.shows(await server.stored(to));
  await window.unread(1);
  assert.deepEqual(await window.page.locator("article .heading").allTextContents(), ["Hello"]);
});

test("a request that is cut is not taken for an origin that is refused", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t);
  const sent = await server.sendMany(to, 1);
  const window = await open();
  await window.shows(sent);
  await window.live();
  await window.page.route("**/state/**", (route) => route.abort("connectionreset")); // and the server answers, when asked whether it is there
  await window.button(/^Mark as read/).click();
  await window.page.locator(".toast", { hasText: "Try again when the connection is back." }).waitFor();
  await window.unread(1);
});

test("names and texts are laid out in their own direction, whatever is around them", { skip }, async (t) => {
  const { open, server, to } = await world.setting(t, { user: "נועה" });
  const hebrew = await server.send(to, { from: "דנה", title: "שלום Ada!", text: "המסמך README.md מוכן?" });
  const latin = await server.send(to, { from: "סלמה", title: "Hello!", text: "Ready?" });
  const window = await open();
  await window.shows([latin.id, hebrew.id]);
  const directions = (id: string) =>
    window.item(id).locator("h3, .text").evaluateAll((all) => all.map((element) => getComputedStyle(element).direction));
  assert.deepEqual(await directions(hebrew.id), ["rtl", "rtl"]);
  assert.deepEqual(await directions(latin.id), ["ltr", "ltr"]);
  assert.equal(await window.item(latin.id).locator("bdi").textContent(), "סלמה");
  assert.equal(await window.page.locator("app-who bdi").first().textContent(), "נועה");
});
