// The list by itself.

import assert from "node:assert/strict";
import { test } from "node:test";
import { merged } from "../src/tidings/items";

const of = (...ids: string[]) => ids.map((id) => ({ id }));

test("two lists become one, newest first, each once", () => {
  assert.deepEqual(merged(of("5", "3"), of("4", "5", "1")), of("5", "4", "3", "1"));
  assert.deepEqual(merged([], of("1", "2")), of("2", "1"));
});

test("the one that was there stays, and a list without news stays the same", () => {
  const items = [{ id: "1", read: true }];
  assert.equal(merged(items, [{ id: "1", read: false }]), items);
});
