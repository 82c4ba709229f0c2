// What the package promises to those who read it and to those who bundle it.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { build } from "esbuild";
import ts from "typescript";

const root = resolve(import.meta.dirname, "..");

/** Names of exported things and of their members that have no comment. */
function undocumented(file: string): string[] {
  const program = ts.createProgram([file], { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022 });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(file) as ts.SourceFile;
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(source) as ts.Symbol);
  const missing: string[] = [];
  const look = (symbol: ts.Symbol, path: string) => {
    if (symbol.flags & (ts.SymbolFlags.Constructor | ts.SymbolFlags.TypeParameter | ts.SymbolFlags.Prototype)) return;
    if (symbol.getDocumentationComment(checker).length === 0) missing.push(path);
  };
  for (const alias of exported) {
    const symbol = alias.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(alias) : alias;
    look(symbol, symbol.name);
    if (!(symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface))) continue;
    symbol.members?.forEach((member) => {
      const inherited = member.name === "name"; // of Error
      if (!/^(__|#)/.test(member.name) && !inherited) look(member, `${symbol.name}.${member.name}`);
    });
  }
  return missing;
}

test("every public symbol is documented", () => {
  assert.deepEqual(undocumented(join(root, "dist/index.d.ts")), []);
});

/** What the recipes take from the application. */
const APPLICATION = `
import type { Gap, Marks, Notification, TidingsClient as Client } from "@tidings/client";
declare global {
  const TidingsClient: typeof Client;
  const tidings: Client;
  function append(notification: Notification): void;
  function prepend(notification: Notification): void;
  function notification(notification: Notification): void;
  function reload(gap: Gap | string): Promise<void>;
  function toast(text: string): void;
  function show(...shown: unknown[]): void;
  function work(data: unknown): Promise<void>;
  function parseWithBigInts(text: string): unknown;
  function repeatWithTheSameKey(): void;
  const signal: AbortSignal;
  const session: { accessToken(options: { ignoreCache: boolean }): Promise<string> };
  const [id, key]: [string, string];
  const newest: { id: string };
  let items: readonly ({ id: string } & Marks)[];
}`;

test("every recipe of the README is true to the types, and short", () => {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const recipes = [...readme.matchAll(/```ts\n([^]*?)```/g)].map(([, code]) => code ?? "");
  assert.ok(recipes.length >= 10);
  for (const recipe of recipes) assert.ok(recipe.trim().split("\n").length <= 10, `longer than ten lines:\n${recipe}`);
  const files = new Map(recipes.map((code, n) => [join(root, `test/recipe-${n}.ts`), `${code}\nexport {};`]));
  files.set(join(root, "test/application.ts"), APPLICATION);
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
    types: ["node"],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (file) => files.has(file) || fileExists(file);
  host.getSourceFile = (file, target) => {
    const code = files.get(file);
    return code === undefined ? getSourceFile(file, target) : ts.createSourceFile(file, code, target);
  };
  const diagnostics = ts.getPreEmitDiagnostics(ts.createProgram([...files.keys()], options, host));
  const said = diagnostics.map(({ file, messageText }) => `${files.get(file?.fileName ?? "")}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
  assert.deepEqual(said, []);
});

test("what is not used is not bundled", async () => {
  const stdin = { contents: `import { applyState } from "@tidings/client"; console.log(applyState)`, resolveDir: root };
  const { outputFiles } = await build({ stdin, bundle: true, minify: true, format: "esm", write: false });
  assert.ok((outputFiles[0]?.contents.length ?? 0) < 1_500);
  assert.doesNotMatch(outputFiles[0]?.text ?? "", /BroadcastChannel|text\/event-stream/);
});

test("the lock file names no host, and dependencies are exact", () => {
  const lock = readFileSync(join(root, "package-lock.json"), "utf8");
  assert.doesNotMatch(lock, /"resolved"/);
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const version of Object.values({ ...dependencies, ...devDependencies })) assert.match(version as string, /^\d+\.\d+\.\d+$/);
});

test("the clients agree on the versions of what they share", () => {
  const versions = new Map<string, Set<string>>();
  for (const client of ["typescript", "angular", "acceptance"]) {
    const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, "..", client, "package.json"), "utf8"));
    for (const [name, version] of Object.entries<string>({ ...dependencies, ...devDependencies })) {
      versions.set(name, (versions.get(name) ?? new Set()).add(version));
    }
  }
  const several = [...versions].filter(([, all]) => all.size > 1).map(([name, all]) => `${name}: ${[...all].join(", ")}`);
  assert.deepEqual(several, []);
});

test("source files stay small enough to read in one go", () => {
  for (const file of readdirSync(join(root, "src"))) {
    const lines = readFileSync(join(root, "src", file), "utf8").split("\n").length;
    assert.ok(lines <= 260, `${file} has ${lines} lines`);
  }
});
