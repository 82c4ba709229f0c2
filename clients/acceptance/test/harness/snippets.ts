// The programs on docs/clients.md, taken from there. What differs from the page is what has to: the
// server's address, the user, and how long a silence is.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const page = resolve(import.meta.dirname, "../../../../docs/clients.md");
const folder = resolve(import.meta.dirname, "../snippets"); // below the package.json that has what they import

/** Every program on the page, by its heading. */
export const snippets = new Map<string, string>();
for (const section of readFileSync(page, "utf8").split(/^## /m).slice(1)) {
  const heading = section.slice(0, section.indexOf("\n"));
  for (const [, code = ""] of section.matchAll(/^```\w+\n(.*?)^```$/gms)) {
    assert.ok(!snippets.has(heading), `two programs under "${heading}": the test knows one`);
    snippets.set(heading, code);
  }
}

/** One of them, for a server and a user, with a little after it; its file. */
export function write(heading: string, name: string, url: string, user: string, after = ""): string {
  const snippet = snippets.get(heading);
  assert.ok(snippet, `docs/clients.md has no program under "${heading}"`);
  let code = snippet;
  // Pings come each second here, and every ten elsewhere.
  for (const [pattern, value] of [
    [/http:\/\/127\.0\.0\.1:8080/, url],
    [/(?<=shop\/|user: ")ada\b/, user],
    [/25_000/, "2_500"],
    [/4_000 \+ 2_000/, "400 + 200"],
    [/(?<=speed-time |read=)30/, "3"],
  ] as const) {
    code = code.replace(pattern, value);
  }
  assert.ok(code.includes(url) && code.includes(user));
  mkdirSync(folder, { recursive: true });
  const file = join(folder, name);
  writeFileSync(file, code + after);
  return file;
}
