// STOP-GAP, to be deleted: stands before a server that has no envelopes, topics and `send/{app}` yet,
// and adds them to what a user gets. Nothing of the package knows of it.

import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

export async function inFrontOf(port: () => number): Promise<{ port: number; stop(): void }> {
  const listener = createServer((incoming, answer) => {
    const url = new URL(incoming.url ?? "/", "http://localhost");
    const user = decodeURIComponent(/subscribe\/[^/]+\/([^/]+)/.exec(url.pathname)?.[1] ?? "");
    url.searchParams.delete("format");
    url.searchParams.delete("topics");
    const path = url.pathname + url.search;
    const outgoing = request({ port: port(), host: "127.0.0.1", path, method: incoming.method, headers: incoming.headers });
    outgoing.on("response", (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      answer.flushHeaders();
      if (!user || response.statusCode !== 200) return void response.pipe(answer);
      let rest = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        const frames = (rest + chunk).split("\n\n");
        rest = frames.pop() ?? "";
        for (const frame of frames) answer.write(enveloped(frame, user) + "\n\n");
      });
      response.on("end", () => answer.end());
      response.on("error", () => answer.destroy());
    });
    outgoing.on("error", () => answer.destroy());
    answer.on("close", () => outgoing.destroy());
    incoming.pipe(outgoing);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return {
    port: (listener.address() as AddressInfo).port,
    stop: () => (listener.closeAllConnections(), listener.close()),
  };
}

function enveloped(frame: string, user: string): string {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(frame)?.[1];
  const event = field("event");
  if (!field("id") || event?.startsWith("tidings.")) return frame;
  const head = JSON.stringify({ id: field("id"), event: event ?? null, audience: { user }, created_at: "2026-01-01T00:00:00.000Z" });
  return frame.replace(/^data: (.*)$/m, (_, data: string) => `data: ${head.slice(0, -1)},"data":${data}}`);
}
