import assert from "node:assert/strict";
import { test } from "node:test";
import { applyState, type Audience, type Marks } from "@tidings/client";

interface Item extends Partial<Marks> {
  id: string;
  audience: Audience;
}
const item = (id: string, audience: Audience = { user: "ada" }, marks: Partial<Marks> = {}): Item => ({ id, audience, ...marks });
const change = (rest: object) => ({ id: "9", ...rest }) as Parameters<typeof applyState>[1];

test("read implies seen, and a second time changes nothing", () => {
  const items = [item("2"), item("1")];
  const once = applyState(items, change({ ids: ["1"], state: "read" }));
  assert.deepEqual(once, [item("2"), item("1", { user: "ada" }, { seen: true, read: true })]);
  assert.equal(applyState(once, change({ ids: ["1"], state: "read" })), once);
});

test("unread and unarchived undo", () => {
  const items = [item("1", "everyone", { seen: true, read: true, archived: true })];
  const unread = applyState(items, change({ ids: ["1"], state: "unread" }));
  assert.deepEqual(unread, [item("1", "everyone", { seen: true, read: false, archived: true })]);
  const back = applyState(unread, change({ ids: ["1"], state: "unarchived" }));
  assert.deepEqual(back, [item("1", "everyone", { seen: true, read: false, archived: false })]);
});

test("up_to reaches the topics it names and no others", () => {
  const items = [item("4"), item("3", { topic: "a" }), item("2", { topic: "b" }), item("1", "everyone")];
  const seen = applyState(items, change({ up_to: "3", topics: ["a"], state: "seen" }));
  assert.deepEqual(
    seen.map(({ seen }) => seen),
    [undefined, true, undefined, true],
  );
});

test("withdrawn and replaced ones go", () => {
  const items = [item("3"), item("2"), item("1")];
  const left = applyState(applyState(items, change({ ids: ["1"], state: "withdrawn" })), change({ ids: ["2"], state: "replaced", by: "3" }));
  assert.deepEqual(left, [item("3")]);
});
