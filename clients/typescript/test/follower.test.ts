import assert from "node:assert/strict";
import { test } from "node:test";
import { Follower, type Step } from "../dist/follower.js";
import type { Frame } from "../dist/connection.js";
import type { Open } from "../dist/messages.js";

const id = (n: number) => String(n).padStart(26, "0");

/** A follower, and a stream that it is offered. */
function following(received: number | null, topics: string[] = [], quiet = false) {
  const steps: Step[] = [];
  const follower = new Follower(received === null ? null : id(received), topics, quiet, (step) => steps.push(step));
  let stream = "";
  let number = 0;
  return {
    follower,
    /** Ids of the notifications taken. */
    taken: () => steps.filter(({ frame }) => frame && !frame.event.startsWith("tidings.")).map((step) => Number(step.id)),
    steps,
    open(name: string, after: number, also: Partial<Open> = {}) {
      stream = name;
      number = 0;
      const position = id(after);
      const open = { type: "open", leader: 1, stream, next: 0, topics: [], after: position, position, live: false, heartbeat: 1 };
      return follower.follow({ ...open, ...also } as Open);
    },
    pass: (frame: Partial<Frame>) =>
      follower.take({ type: "frame", leader: 1, stream, number: number++, frame: { event: "message", data: "1", ...frame } }),
    skip: () => number++,
  };
}

const ping = (n: number, database = "up"): Frame => ({ id: id(n), event: "tidings.ping", data: JSON.stringify({ time: "t", database }) });
const gap = (after: number | null, resumes: number, reason: string): Frame => ({
  id: id(resumes),
  event: "tidings.gap",
  data: JSON.stringify({ after: after === null ? null : id(after), resumes_after: id(resumes), reason }),
});

test("streams that overlap are taken once", () => {
  const { open, pass, taken } = following(10);
  assert.ok(open("a", 10));
  for (const n of [11, 12]) pass({ id: id(n) });
  assert.ok(open("b", 5));
  for (const n of [6, 11, 12, 13]) pass({ id: id(n) });
  assert.deepEqual(taken(), [11, 12, 13]);
});

test("a stream that begins above what is lacking is not followed", () => {
  const { open, pass, taken } = following(10);
  assert.equal(open("a", 12), false);
  assert.equal(pass({ id: id(13) }), false);
  assert.deepEqual(taken(), []);
});

test("a stream without a topic that is needed is not followed", () => {
  const { open } = following(10, ["news"]);
  assert.equal(open("a", 10), false);
  assert.ok(open("b", 10, { topics: ["deals", "news"] }));
});

test("a message that was lost on the way is noticed", () => {
  const { open, pass, skip, taken } = following(10);
  open("a", 10);
  pass({ id: id(11) });
  skip();
  assert.equal(pass({ id: id(13) }), false);
  assert.deepEqual(taken(), [11]);
});

test("frames of a leader that was replaced are not taken", () => {
  const { follower, open, taken } = following(10);
  open("b", 10);
  const frame = { id: id(11), event: "message", data: "1" };
  assert.equal(follower.take({ type: "frame", leader: 1, stream: "a", number: 0, frame }), false);
  assert.deepEqual(taken(), []);
});

test("a gap can set the cursor down, and then lower ids count again", () => {
  const { open, pass, steps, taken } = following(100);
  open("a", 100);
  pass(gap(100, 50, "ahead"));
  pass({ id: id(51) });
  assert.deepEqual(taken(), [51]);
  assert.equal(steps[0]?.id, id(50));
});

test("a gap below what one has is not one", () => {
  const { open, pass, steps, taken } = following(100);
  open("a", 5);
  pass(gap(5, 50, "expired"));
  pass({ id: id(60) });
  assert.deepEqual(steps, []);
  pass({ id: id(101) });
  assert.deepEqual(taken(), [101]);
});

test("earliest means whatever is kept, so its gap is no news", () => {
  const { open, pass, steps, taken } = following(0, [], true);
  open("a", 0);
  pass(gap(0, 50, "expired"));
  pass({ id: id(51) });
  assert.equal(steps[0]?.frame, undefined);
  assert.deepEqual(taken(), [51]);
});

test("without a cursor it begins where the stream is live, not where it began", () => {
  const { follower, open, pass, taken } = following(null);
  assert.ok(open("a", 5));
  pass({ id: id(6) });
  pass({ event: "tidings.live" });
  pass({ id: id(7) });
  assert.deepEqual(taken(), [7]);
  assert.equal(follower.received, id(7));
});

test("a cursor of another database becomes a gap, not silence", () => {
  const { open, pass, steps, taken } = following(100);
  open("a", 20, { live: true });
  pass(ping(20));
  assert.equal(steps.length, 0, "a history read a moment ago is ahead of the stream too");
  pass(ping(21));
  pass({ id: id(22) });
  assert.equal(steps[0]?.frame?.event, "tidings.gap");
  assert.deepEqual(taken(), [22]);
});

test("nor is a database that is away, and so no stream moves on", () => {
  const { open, pass, steps } = following(100);
  open("a", 20, { live: true });
  for (const n of [20, 20, 20]) pass(ping(n, "unreachable"));
  assert.equal(steps.length, 0);
  for (const n of [20, 20]) pass(ping(n));
  assert.equal(steps[0]?.frame?.event, "tidings.gap");
});

test("a long replay below one's place is no sign of another database", () => {
  const { open, pass, steps } = following(100);
  open("a", 5);
  for (const n of [10, 20, 30]) pass(ping(n));
  assert.deepEqual(steps, []);
});
