// A tab's network, as the DevTools protocol takes it away.

import type { BrowserTab } from "../../../typescript/build/harness/browser.js";

/** Switches one tab's network. The session stays: what it emulates ends with it. */
export async function network(page: BrowserTab["page"]) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Network.enable");
  const emulate = async (offline: boolean) => {
    await devtools.send("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  };
  return { offline: () => emulate(true), online: () => emulate(false) };
}
