// A real Tidings server with a database of its own.

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { within } from "./wait.js";

// Looked for, because other clients' tests use this too and are compiled to elsewhere.
let root = import.meta.dirname;
while (!existsSync(join(root, "Cargo.toml")) && root !== resolve(root, "..")) root = resolve(root, "..");
const candidates = [process.env["TIDINGS_BIN"], join(root, "target/release/tidings"), join(root, "target/debug/tidings")];
const binary = candidates.find((path): path is string => Boolean(path) && existsSync(path as string));

/** For `test(…, { skip })`: false if there is a server, else why not. */
export const noServer = missing(
  binary ? undefined : "no Tidings server: build one with `cargo build`, or name one in TIDINGS_BIN",
);

/** Under CI a missing program is a failure, elsewhere a reason to skip. */
export function missing(reason: string | undefined): string | false {
  if (reason && process.env["CI"] === "true") throw new Error(reason);
  return reason ?? false;
}

export interface Sent {
  id: string;
  created_at: string;
}

export class Server {
  #child: ChildProcess | undefined;
  #port = 0;
  #psql: string[] = [];

  private constructor(
    readonly folder: string,
    readonly settings: Record<string, string>,
  ) {}

  static async start(settings: Record<string, string> = {}): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), "tidings-client-"));
    chmodSync(folder, 0o755); // as root, Postgres runs as somebody else, who has to get through
    const server = new Server(folder, { TIDINGS_HEARTBEAT: "1s", TIDINGS_DRAIN: "2s", ...settings });
    await server.run();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get port(): number {
    return this.#port;
  }

  /** Starts it, or starts it again on the port and the data from before. */
  async run(): Promise<void> {
    const child = spawn(binary as string, ["--listen", `127.0.0.1:${this.#port}`, ...this.#place], {
      ...this.#surroundings,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    process.once("exit", () => child.kill());
    let said = "";
    const port = new Promise<number>((resolve, reject) => {
      const listen = (chunk: Buffer) => {
        said += chunk.toString();
        const found = /listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(said);
        const psql = /^SQL: (psql .*)\n/m.exec(said);
        if (!found || !psql?.[1]) return;
        this.#psql = psql[1].split(" ");
        resolve(Number(found[1]));
      };
      child.stdout?.on("data", listen);
      child.stderr?.on("data", listen);
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
    });
    this.#port = await within(port, "the server's start");
    await within(this.#ready(), "the server's database");
  }

  /** Until it has its database: before that a send waits for a while, and then fails. */
  async #ready(): Promise<void> {
    while (!(await fetch(`${this.url}/readyz`)).ok) await pause(20);
  }

  get #place(): string[] {
    return ["--data-dir", join(this.folder, "data")];
  }

  get #surroundings() {
    const { PATH, HOME } = process.env;
    return {
      cwd: this.folder, // no .env is read
      env: { PATH, HOME, TIDINGS_LOG: "warn", ...this.settings },
    };
  }

  /** Another command of the program, on the same data; what it prints. */
  async command(...words: string[]): Promise<string> {
    return (await promisify(execFile)(binary as string, [...words, ...this.#place], this.#surroundings)).stdout;
  }

  /** What SQL answers, a row a line, by the `psql` line that the server printed. */
  async sql(statement: string): Promise<string[]> {
    const [program, ...words] = this.#psql as [string, ...string[]];
    const { stdout } = await promisify(execFile)(program, [...words, "-XAtqv", "ON_ERROR_STOP=1", "-c", statement]);
    return stdout.split("\n").filter(Boolean);
  }

  /** Ends it as an operator would, or with SIGKILL as a fault would. */
  async end(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await within(gone, "the server's end");
  }

  /** Ends it and removes its data. */
  async stop(): Promise<void> {
    await this.end();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Sends to a user; not with the package, so that what is expected does not depend on it. */
  async send(to: string, data: unknown, event?: string): Promise<Sent> {
    const response = await fetch(`${this.url}/api/notifications/send/${to}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ data, ...(event && { event }) }),
    });
    if (response.status !== 201) throw new Error(`send: ${response.status} ${await response.text()}`);
    return (await response.json()) as Sent;
  }

  /** Sends several, one after the other; their ids. */
  async sendMany(to: string, count: number): Promise<string[]> {
    const ids: string[] = [];
    for (let n = 0; n < count; n++) ids.push((await this.send(to, n)).id);
    return ids;
  }

  /** Ids of the user's rows in order, from the table. */
  stored(to: string): Promise<string[]> {
    const [app, user] = to.split("/");
    return this.sql(`select id from tidings.history where app = '${app}' and audience = 'user:${user}' order by uuid`);
  }
}
