// What the snippets on docs/clients.md expect of the application around them. Told to the test.

declare global {
  var show: (id: string, data: unknown) => void;
  var reload: () => void;
  /** What a framework rendered: the items' text, and the label. */
  var rendered: () => { items: string[]; label: string };
}

window.start = async () => {}; // a snippet starts by itself
// Kept before the snippet keeps its cursor, and in the same place: a reload can come in between telling
// and having told.
const shown: string[] = JSON.parse(sessionStorage.getItem("shown") ?? "[]");
globalThis.show = (id) => {
  shown.push(id);
  sessionStorage.setItem("shown", JSON.stringify(shown));
  void window.report("got", shown);
};
globalThis.reload = () => void window.report("reload", true);
globalThis.rendered = () => ({
  items: [...document.querySelectorAll("li")].map(({ textContent }) => textContent),
  label: document.querySelector("section")?.getAttribute("aria-label") ?? "",
});

export type {} from "../../../typescript/build/page/page.js";
