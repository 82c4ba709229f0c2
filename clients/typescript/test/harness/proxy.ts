// A TCP proxy that cuts and holds, and counts the streams that pass through it.

import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { Seen } from "./wait.js";

export class Proxy {
  /** Every request for a stream, as its first line and headers. */
  readonly streams = new Seen<string>();
  /** How many of those were open at once, at most. */
  most = 0;
  #open = new Set<Socket>();
  #pairs = new Set<Socket>();
  #refusing = false;
  #held = false;
  #ended = new Seen<number>();

  private constructor(
    private readonly listener: Server,
    private readonly target: () => number,
  ) {}

  static async start(target: () => number): Promise<Proxy> {
    const listener = createServer();
    const proxy = new Proxy(listener, target);
    listener.on("connection", (client) => proxy.#connect(client));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.listener.address() as AddressInfo).port}`;
  }

  /** How many streams are open. */
  get open(): number {
    return this.#open.size;
  }

  /** Resolves when so many streams are open. */
  async untilOpen(count: number): Promise<void> {
    await this.#ended.until(() => this.open === count, `${count} open streams`);
  }

  /** Cuts all connections as a failing network does. */
  cut(): void {
    for (const socket of this.#pairs) socket.destroy();
  }

  /** Cuts, and lets nobody in until `mend`. */
  break(): void {
    this.#refusing = true;
    this.cut();
  }

  /** Keeps connections open but passes nothing on to clients, until `mend`. */
  hold(): void {
    this.#held = true;
  }

  mend(): void {
    this.#refusing = this.#held = false;
  }

  async stop(): Promise<void> {
    this.break();
    await new Promise((resolve) => this.listener.close(resolve));
  }

  #connect(client: Socket): void {
    if (this.#refusing) return void client.destroy();
    const server = connect(this.target(), "127.0.0.1");
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#pairs.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.#pairs.delete(from);
        to.destroy();
        this.#open.delete(client);
        this.#ended.push(this.open);
      });
    }
    client.on("data", (chunk) => {
      const text = chunk.toString("latin1");
      if (/^GET \/api\/notifications\/subscribe/.test(text)) {
        this.#open.add(client);
        this.most = Math.max(this.most, this.open);
        this.streams.push(text);
        this.#ended.push(this.open);
      }
      server.write(chunk);
    });
    server.on("data", (chunk) => this.#held || client.write(chunk));
  }
}
