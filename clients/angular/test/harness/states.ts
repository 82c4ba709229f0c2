// Every state that the application can be seen in, and how a person gets there. The same for axe and
// for the pictures of docs/screens.md.

import type { View, Window } from "./window";
import type { Setting, World } from "./world";

export interface State {
  /** Of its picture. */
  name: string;
  view?: View;
  reach(setting: Setting, world: World, view: View): Promise<Window>;
}

const WORDS: [data: unknown, event?: string][] = [
  [{ from: "Bookshop", text: "Thank you for your order. We pack it today.", order: 1704 }, "order.received"],
  [{ title: "Your table is booked", text: "Friday at 19:30, for four, at the window." }],
  [{ from: "Grace", text: "Can you look at the second chapter before noon?" }, "chat.message"],
  ["The build of main is green again."],
  [{ order: 1704, carrier: "Parcel service", arrives: "Thursday" }, "order.shipped"],
  [{ from: "Grace", text: "Never mind, found it. See you at lunch!" }, "chat.message"],
];

const LONG = [
  "The lighthouse keeper wrote down each ship that passed, its name where she could read it, the hour, and the weather.",
  "In forty years she missed no evening. When the light was made to run by itself the books went to the harbour office,",
  "where for a long time nobody opened them, until somebody wanted to know when the ice had come in the winters before.",
  "It was all there: the ships, the hours, the ice. She had written it for nobody, and it was exactly what they needed.",
].join(" ");

const RIGHT_TO_LEFT: [data: unknown, event?: string][] = [
  [{ from: "נועה (Noa)", text: "Meet at 10:30, room 4." }, "chat.message"],
  [{ from: "سلمى", title: "طلبك في الطريق", text: "سيصل طلبك رقم 1704 يوم الخميس بين الساعة 10 و12.", order: "1704-ب" }],
  [{ from: "דנה", title: "שלום Ada!", text: "המסמך README.md מוכן, אפשר לעבור עליו?" }],
  ["مرحبا بك في Tidings!"],
];

async function sendAll({ server, to }: Setting, all: typeof WORDS): Promise<string[]> {
  const ids: string[] = [];
  for (const [data, event] of all) ids.push((await server.send(to, data, event)).id);
  return ids;
}

/** A list of which some are read, up to date. */
async function list(setting: Setting, view: View): Promise<Window> {
  const ids = await sendAll(setting, WORDS);
  const window = await setting.open(view);
  await window.live();
  for (const id of ids.slice(0, 3)) await window.item(id).getByRole("button", { name: "Mark as read" }).click();
  await window.unread(3);
  // Nobody points at anything.
  await window.page.mouse.move(0, 0);
  await window.page.evaluate(() => ((document.activeElement as HTMLElement).blur(), scrollTo(0, 0)));
  return window;
}

const error: State["reach"] = async ({ open }, _, view) => {
  const window = await open(view, {}, "localhost");
  await window.page.getByRole("heading", { name: "The server does not answer to this page" }).waitFor();
  return window;
};

export const STATES: State[] = [
  { name: "nobody", reach: ({ open }, _, view) => open(view, { url: "", app: "", user: "" }) },
  {
    name: "empty",
    async reach({ open }, _, view) {
      const window = await open(view);
      await window.live();
      await window.page.getByText("Nothing yet").waitFor();
      return window;
    },
  },
  { name: "list", reach: (setting, _, view) => list(setting, view) },
  {
    name: "arriving",
    async reach(setting, _, view) {
      const window = await list(setting, view);
      await window.keepsToasts();
      await sendAll(setting, WORDS.slice(0, 5));
      await window.page.getByText("and 2 more").waitFor();
      return window;
    },
  },
  {
    name: "reconnecting",
    async reach(setting, _, view) {
      const window = await list(setting, view);
      setting.proxy.break();
      await window.says("Reconnecting");
      return window;
    },
  },
  {
    name: "unreachable",
    async reach({ open, proxy }, _, view) {
      proxy.break();
      const window = await open(view);
      await window.page.getByRole("heading", { name: "The server cannot be reached" }).waitFor();
      return window;
    },
  },
  { name: "error", reach: error },
  {
    name: "gap",
    async reach(setting, world, view) {
      const other = await world.other();
      await sendAll({ ...setting, server: other }, WORDS.slice(3)); // before the others, which it never had
      const window = await list(setting, view);
      setting.replace(other);
      await window.page.getByRole("heading", { name: "Some notifications may be missing" }).waitFor();
      await window.live();
      return window;
    },
  },
  {
    name: "failed-send",
    async reach(setting, _, view) {
      const window = await list(setting, view);
      await window.page.getByRole("textbox", { name: "Message" }).fill("Will this arrive?");
      setting.proxy.break();
      await window.button(/^Send$/).click();
      await window.page.locator(".toast", { hasText: "The server did not confirm this" }).waitFor();
      return window;
    },
  },
  {
    name: "long-texts",
    view: { width: 1080, height: 720 },
    async reach(setting, _, view) {
      await sendAll(setting, [
        [{ title: "Short", text: "A neighbour of ordinary size." }],
        [{ from: "A sender whose name is a good deal longer than what one would give to a child", title: LONG.slice(0, 230), text: LONG }],
        [`https://tidings.example/${"a-path-without-any-place-to-break".repeat(6)}`],
        [{ text: LONG, [`a_member_with_a_name_that_${"goes_on_".repeat(6)}`]: "x".repeat(160), nested: { list: [1, 2, { deep: LONG.slice(0, 100) }] } }, "report.finished"],
      ]);
      const window = await setting.open(view);
      await window.live();
      return window;
    },
  },
  {
    name: "right-to-left",
    async reach(setting, _, view) {
      await sendAll(setting, [...RIGHT_TO_LEFT, ...WORDS.slice(1, 3)]);
      const window = await setting.open(view);
      await window.live();
      return window;
    },
  },
  { name: "narrow", view: { width: 360, height: 760 }, reach: (setting, _, view) => list(setting, view) },
  { name: "narrow-error", view: { width: 320, height: 760 }, reach: error },
  { name: "dark", view: { dark: true }, reach: (setting, _, view) => list(setting, view) },
  { name: "dark-error", view: { dark: true }, reach: error },
];
