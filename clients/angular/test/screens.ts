// Takes the pictures of docs/screens.md: `npm run screens`, with names for only these. Nothing is
// retouched: they are what a real browser shows of a real server's notifications.

import { mkdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { STATES, type State } from "./harness/states";
import { skip, World } from "./harness/world";

const LARGEST = 150_000; // bytes, of what a repository should carry
const folder = resolve(import.meta.dirname, "../../../docs/screens");

async function take({ name, view = {}, reach }: State, world: World): Promise<void> {
  const ends: (() => unknown)[] = [];
  try {
    const window = await reach(await world.setting({ after: (end) => void ends.push(end as () => unknown) }), world, view);
    await window.page.evaluate(() => Promise.all(document.getAnimations().map(({ finished }) => finished)));
    const path = `${folder}/${name}.png`;
    await window.page.screenshot({ path });
    const { size } = await stat(path);
    console.log(`${name}.png: ${size} bytes`);
    if (size > LARGEST) throw new Error(`${path} is larger than ${LARGEST} bytes.`);
  } finally {
    for (const end of ends) await end();
  }
}

if (skip) throw new Error(skip);
await mkdir(folder, { recursive: true });
const only = process.argv.slice(2);
const world = await World.start();
try {
  for (const state of STATES) if (only.length === 0 || only.includes(state.name)) await take(state, world);
} finally {
  await world.stop();
}
