// Takes the pictures of docs/screens.md: `npm run screens`. Nothing is retouched: they are what a
// real browser shows of a real server's notifications.

import { mkdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { STATES } from "./harness/states";
import { skip, World } from "./harness/world";

const LARGEST = 150_000; // bytes, of what a repository should carry
const folder = resolve(import.meta.dirname, "../../../docs/screens");

if (skip) throw new Error(skip);
await mkdir(folder, { recursive: true });
const only = process.argv.slice(2);
const world = await World.start();
for (const { name, view = {}, reach } of STATES) {
  if (only.length && !only.includes(name)) continue;
  const ends: (() => unknown)[] = [];
  const window = await reach(await world.setting({ after: (end) => void ends.push(end as () => unknown) }), world, view);
  await window.page.evaluate(() => Promise.all(document.getAnimations().map(({ finished }) => finished)));
  const path = `${folder}/${name}.png`;
  await window.page.screenshot({ path });
  const { size } = await stat(path);
  console.log(`${name}.png: ${size} bytes`);
  if (size > LARGEST) process.exitCode = 1;
  for (const end of ends) await end();
}
await world.stop();
