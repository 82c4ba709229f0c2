// A server that says what a test tells it to, for what a real one does not do on request: refusals,
// silence, odd proxies. What it says is in the words of the contract.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Seen } from "./wait.js";

export type Answer = (answer: ServerResponse, request: IncomingMessage) => void;

export class Stub {
  readonly requests = new Seen<{ at: number; url: string; headers: IncomingMessage["headers"] }>();

  private constructor(private readonly listener: ReturnType<typeof createServer>) {}

  /** Answers the first request with the first answer and so on; the last one is repeated. */
  static async start(...answers: Answer[]): Promise<Stub> {
    const listener = createServer((request, answer) => {
      stub.requests.push({ at: performance.now(), url: request.url ?? "", headers: request.headers });
      answers[Math.min(stub.requests.all.length, answers.length) - 1]?.(answer, request);
    });
    const stub = new Stub(listener);
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return stub;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.listener.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.listener.closeAllConnections();
    this.listener.close();
  }
}

export const id = (n: number) => String(n).padStart(26, "0");

/** Frames as the server writes them, on a stream that stays open. */
export const stream =
  (...frames: string[]): ((answer: ServerResponse) => void) =>
  (answer) => {
    answer.writeHead(200, { "content-type": "text/event-stream" });
    answer.write(frames.join(""));
  };

/** The same, on a stream that ends. */
export const ending =
  (...frames: string[]): Answer =>
  (answer) => (stream(...frames)(answer), answer.end());

export const ready = (cursor: number, retry = 20, heartbeat = 10) =>
  `retry: ${retry}\nid: ${id(cursor)}\nevent: tidings.ready\ndata: {"cursor":"${id(cursor)}","heartbeat_seconds":${heartbeat}}\n\n`;
export const live = `event: tidings.live\ndata: {"replayed":0}\n\n`;
export const goodbye = (reason: string, retry: number) => `retry: ${retry}\nevent: tidings.goodbye\ndata: {"reason":"${reason}"}\n\n`;
export const notification = (n: number, audience: unknown = { user: "ada" }) =>
  `id: ${id(n)}\ndata: ${JSON.stringify({ id: id(n), event: null, audience, created_at: "2026-01-01T00:00:00Z", data: n })}\n\n`;

export const problem =
  (status: number, slug: string, headers = {}): Answer =>
  (answer) => {
    answer.writeHead(status, { "content-type": "application/problem+json", ...headers });
    answer.end(JSON.stringify({ type: `urn:tidings:problem:${slug}`, title: slug, status, detail: `about ${slug}` }));
  };
