// A program that prints what it gets, an id and the data on each line, and keeps its cursor in a file.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Seen, within } from "../../../typescript/build/harness/wait.js";

export class Program {
  readonly ids = new Seen<string>();
  readonly cursors = new Seen<string>();
  readonly #folder = mkdtempSync(join(tmpdir(), "tidings-snippet-"));
  readonly #watching = watch(this.#folder, () => this.#look());
  #child: ChildProcess | undefined;
  #said = "";

  constructor(private readonly command: readonly [string, ...string[]]) {}

  start(): void {
    const [program, ...words] = this.command;
    // A group of its own: a shell has children.
    const child = spawn(program, words, { cwd: this.#folder, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let line = "";
    child.stdout.on("data", (chunk: Buffer) => {
      const lines = (line + chunk.toString()).split("\n");
      line = lines.pop() ?? "";
      for (const each of lines) this.ids.push(each.slice(0, each.indexOf(" ")));
    });
    child.stderr.on("data", (chunk: Buffer) => (this.#said += chunk.toString()));
  }

  /** Resolves when its cursor is there, and not before this one. */
  async kept(id = ""): Promise<void> {
    this.#look();
    await this.cursors.until((all) => (all.at(-1) ?? "") >= (id || "0"), `a cursor from ${id}`).catch((error: Error) => {
      throw new Error(`${error.message}; it said: ${this.#said}`);
    });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    process.kill(-child.pid, "SIGKILL");
    await within(gone, "the program's end");
  }

  async stop(): Promise<void> {
    await this.kill();
    this.#watching.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #look(): void {
    try {
      const cursor = readFileSync(join(this.#folder, "cursor"), "utf8");
      if (cursor !== this.cursors.all.at(-1)) this.cursors.push(cursor);
    } catch {
      // not there yet
    }
  }
}
