// The built application on an origin of its own, as any web server would serve it; under two names,
// of which the tests' server is told only one.

import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, resolve } from "node:path";

const dist = resolve(import.meta.dirname, "../dist");
const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

export class Site {
  private constructor(private readonly listener: Server) {}

  static async start(): Promise<Site> {
    const listener = createServer(async ({ url = "/" }, answer) => {
      const { pathname } = new URL(url, "http://site");
      const file = pathname === "/" ? "index.html" : pathname;
      try {
        const body = await readFile(join(dist, file));
        answer.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain" }).end(body);
      } catch {
        answer.writeHead(404).end();
      }
    });
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return new Site(listener);
  }

  origin(host = "127.0.0.1"): string {
    return `http://${host}:${(this.listener.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.listener.closeAllConnections();
    this.listener.close();
  }
}
