// The browser's own EventSource and nothing else: no watchdog, no second EventSource. It reports to
// the test as the package's page does. What a page has to do itself is to keep its cursor over a reload.

import type { Start } from "../../../typescript/build/page/page.js";

declare global {
  interface Window {
    source: EventSource;
  }
}

const got: string[] = JSON.parse(sessionStorage.getItem("got") ?? "[]");

window.start = async ({ url, user }: Start) => {
  const address = new URL(`${url}/api/notifications/subscribe/shop/${user}`);
  const cursor = sessionStorage.getItem("cursor");
  if (cursor) address.searchParams.set("last_event_id", cursor);
  const source = (window.source = new EventSource(address));
  const on = (name: string, handle: (event: MessageEvent<string>) => void) =>
    source.addEventListener(name, (event: MessageEvent<string>) => {
      handle(event);
      sessionStorage.setItem("cursor", event.lastEventId);
    });
  const get = ({ lastEventId }: MessageEvent) => {
    got.push(lastEventId);
    sessionStorage.setItem("got", JSON.stringify(got));
    void window.report("got", got);
  };
  on("message", get);
  on("order.shipped", get);
  on("tidings.ready", () => {});
  on("tidings.ping", () => {});
  on("tidings.gap", ({ data }) => void window.report("gap", JSON.parse(data)));
  on("tidings.goodbye", ({ data }) => void window.report("goodbye", JSON.parse(data)));
  on("tidings.live", () => void window.report("state", "live"));
  source.addEventListener("error", () => {
    void window.report("state", source.readyState === EventSource.CLOSED ? "failed" : "reconnecting");
  });
};
