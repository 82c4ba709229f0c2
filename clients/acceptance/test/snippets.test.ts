// Every program on docs/clients.md, as it is there, against a real server whose connections are cut.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { after, before, describe, test, type TestContext } from "node:test";
import { Browser, noBrowser, Pages, type BrowserTab } from "../../typescript/build/harness/browser.js";
import { Proxy } from "../../typescript/build/harness/proxy.js";
import { noServer, Server } from "../../typescript/build/harness/server.js";
import { Stub } from "../../typescript/build/harness/stub.js";
import { Program } from "./harness/program.js";
import { snippets, write } from "./harness/snippets.js";

let pages: Pages;
let browser: Browser;
let server: Server;
const tried = new Set<string>();

before(async () => {
  if (noServer) return;
  server = await Server.start({ TIDINGS_CORS_ORIGINS: "*" });
  if (noBrowser) return;
  pages = await Pages.start();
  browser = await Browser.start(pages);
});
after(async () => {
  await browser?.stop();
  await server?.stop();
  pages?.stop();
});

/** A user of its own, a proxy in front of the server, and the program as a file. */
async function setting(t: TestContext, heading: string, name: string, after = "") {
  tried.add(heading);
  const user = name.replace(/\W/g, "-");
  let port = () => server.port;
  const proxy = await Proxy.start(() => port());
  t.after(() => proxy.stop());
  const file = write(heading, name, proxy.url, user, after);
  const redirect = (to: () => number) => (port = to);
  return { proxy, file, to: `shop/${user}`, redirect };
}

/** The same in a tab; what it showed can be waited for. */
async function inTab(t: TestContext, heading: string, name: string, after = "") {
  const all = await setting(t, heading, name, after);
  const page = all.file.replace(name, `page-of-${name}`);
  writeFileSync(page, `import "../page/shows.js";\nimport "./${name}";\n`);
  const pages = await Pages.start({ [`/${name}`]: page });
  t.after(() => pages.stop());
  const open = async () => {
    const tab = await browser.openAt(pages.origin() + `/${name}`);
    t.after(() => tab.page.close());
    return tab;
  };
  return { ...all, open };
}

/** So many ids that the page showed; else what became of it. */
async function shown(tab: BrowserTab, count: number): Promise<readonly string[]> {
  return tab.ids.count(count, "id shown").catch((error: Error) => {
    throw new Error(`${error.message}; told: ${JSON.stringify(tab.told.all)}`);
  });
}

/** All that is stored, in order, but for those before it began. */
async function expectShown(tab: BrowserTab, to: string, before = 0): Promise<void> {
  const stored = (await server.stored(to)).slice(before);
  assert.deepEqual(await shown(tab, stored.length), stored);
}

describe("what docs/clients.md says runs", { concurrency: true }, () => {
  const skip = noServer || noBrowser;

  test("the browser's EventSource: through a reload, a 502, and a silence", { skip }, async (t) => {
    const { proxy, redirect, to, open } = await inTab(t, "The browser's EventSource", "native.js");
    const tab = await open();
    await tab.page.waitForFunction(() => Object.keys(sessionStorage).some((key) => key.startsWith("http"))); // ready
    await server.sendMany(to, 3);
    await expectShown(tab, to);

    const sending = server.sendMany(to, 10);
    await tab.page.reload();
    await sending;
    await expectShown(tab, to);

    const headers = { "access-control-allow-origin": "*", connection: "close" };
    const bad = await Stub.start((answer) => void answer.writeHead(502, headers).end());
    t.after(() => bad.stop());
    redirect(() => Number(new URL(bad.url).port));
    proxy.cut();
    await bad.requests.count(1, "request that is answered 502");
    redirect(() => server.port);
    await server.sendMany(to, 3);
    await expectShown(tab, to);

    proxy.hold();
    await server.sendMany(to, 3);
    await proxy.streams.count(proxy.streams.all.length + 1, "stream in place of the silent one");
    proxy.mend();
    await server.sendMany(to, 3);
    await expectShown(tab, to);

    // Of another database: the next load says that something may be missing.
    await tab.page.evaluate(() => {
      for (const key of Object.keys(sessionStorage)) if (key !== "shown") sessionStorage.setItem(key, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    });
    assert.deepEqual(tab.told.all, []);
    await tab.page.reload();
    await tab.told.until((all) => all[0]?.[0] === "reload", "reload");
  });

  test("the package: history, then what comes", { skip }, async (t) => {
    const { proxy, to, open } = await inTab(t, "The package", "package.js");
    await server.sendMany(to, 3);
    const during = server.sendMany(to, 200); // also between the history's answer and the stream's
    const tab = await open();
    await during;
    // A history has the newest 50, and so many may have been sent before it was read.
    const [first = ""] = await shown(tab, 1);
    const before = (await server.stored(to)).indexOf(first);
    await expectShown(tab, to, before);
    for (let cut = 0; cut < 3; cut++) {
      const sending = server.sendMany(to, 5);
      proxy.cut();
      await sending;
      await expectShown(tab, to, before);
    }
  });

  const REACT = `
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
createRoot(document.body.appendChild(document.createElement("main"))).render(<StrictMode><Notifications /></StrictMode>);
`;
  const VUE = `
import { createApp } from "vue";
createApp(Notifications).mount(document.body.appendChild(document.createElement("main")));
`;
  for (const [heading, name, mount] of [
    ["React", "react.jsx", REACT],
    ["Vue", "vue.js", VUE],
  ] as const) {
    test(`${heading}: the list and the badge, also when the server is away at first`, { skip }, async (t) => {
      const { proxy, to, open } = await inTab(t, heading, name, mount);
      proxy.break();
      const sent = await server.sendMany(to, 2);
      const { page } = await open();
      await page.waitForFunction(() => rendered().label === "0 unread, reconnecting");
      proxy.mend();
      await page.waitForFunction(() => rendered().label === "2 unread, live");
      const sending = server.sendMany(to, 5);
      proxy.cut();
      sent.push(...(await sending));
      await page.waitForFunction(() => rendered().label === "7 unread, live");
      const [app, user] = to.split("/");
      const data = `select data from tidings.history where app = '${app}' and audience = 'user:${user}' order by uuid desc`;
      assert.deepEqual((await page.evaluate(() => rendered())).items, await server.sql(data));
      const body = JSON.stringify({ ids: sent.slice(0, 3), state: "read" });
      const headers = { "content-type": "application/json" };
      await fetch(`${server.url}/api/notifications/state/${to}`, { method: "POST", headers, body });
      await page.waitForFunction(() => rendered().label === "4 unread, live");
    });
  }

  /** Cut, killed and started again, it prints what is in the table. */
  async function follows(t: TestContext, heading: string, name: string, interpreter: string) {
    const { proxy, file, to } = await setting(t, heading, name);
    const program = new Program([interpreter, file]);
    t.after(() => program.stop());
    program.start();
    await program.kept();
    for (let cut = 0; cut < 2; cut++) {
      const sending = server.sendMany(to, 5);
      proxy.cut();
      await program.kept((await sending).at(-1));
    }
    await program.kill();
    await server.sendMany(to, 5);
    program.start();
    await program.ids.until((all) => all.length >= 15, "15 lines");
    assert.deepEqual(program.ids.all, await server.stored(to));
  }

  test("Node: through cuts and a kill", { skip: noServer }, (t) => follows(t, "Node", "node.js", process.execPath));

  test("curl: through cuts and a kill", { skip: noServer }, (t) => follows(t, "curl", "curl.sh", "sh"));

  test("Python: through cuts and a kill", { skip: noServer }, async (t) => {
    tried.add("Python");
    const folder = mkdtempSync(join(tmpdir(), "tidings-python-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    try {
      await promisify(execFile)("python3", ["-m", "venv", folder]);
      await promisify(execFile)(`${folder}/bin/pip`, ["install", "-q", "httpx==0.28.1", "httpx-sse==0.4.3"]);
    } catch (error) {
      return t.skip(`no python3 with venv, or no package index: ${(error as Error).message.split("\n").at(-2)}`);
    }
    await follows(t, "Python", "python.py", `${folder}/bin/python`);
  });
});

test("and nothing is on it that was not tried", { skip: noServer || noBrowser }, () => {
  assert.deepEqual([...snippets.keys()].sort(), [...tried].sort());
});
