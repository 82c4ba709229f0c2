// What a notification says, whatever its sender put into it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { describe, headed, summary } from "../src/app/describe";

test("text is text, and an event is a headline", () => {
  assert.deepEqual(describe({ event: null, data: "Hello" }), { text: "Hello", facts: [] });
  assert.deepEqual(describe({ event: "order.shipped", data: "Hello" }), { title: "Order shipped", text: "Hello", facts: [] });
});

test("the usual members are found, and the others are facts", () => {
  assert.deepEqual(describe({ event: "chat.message", data: { from: "Bob", body: "Hi", room: 7, tags: ["a"] } }), {
    title: "Chat message",
    from: "Bob",
    text: "Hi",
    facts: [
      ["Room", "7"],
      ["Tags", `["a"]`],
    ],
  });
  assert.equal(describe({ event: "order.shipped", data: { title: "On its way" } }).title, "On its way");
});

test("what is no text is shown as it is, and nothing is called empty", () => {
  assert.equal(describe({ event: null, data: [1, null] }).text, "[1,null]");
  assert.equal(describe({ event: null, data: { title: 5 } }).title, undefined);
  assert.equal(summary({ event: null, data: {} }), "Empty");
  assert.equal(summary({ event: null, data: "" }), "Empty");
  assert.equal(summary({ event: "ping", data: null }), "Ping");
});

test("a summary is one line of a bounded length, and cuts no character in two", () => {
  assert.equal(summary({ event: "note", data: { from: "Eve", text: "Hi" } }), "Eve: Note: Hi");
  const long = summary({ event: null, data: "😀".repeat(200) }, 10);
  assert.equal([...long].length, 10);
  assert.match(long, /^(😀){9}…$/u);
});

test("a headline is always there, and nothing is said twice", () => {
  assert.deepEqual(headed({ event: null, data: "Hello" }), { heading: "Hello", from: undefined, text: undefined, facts: [] });
  assert.deepEqual(headed({ event: null, data: { from: "Bob", text: "Hi" } }), { heading: "Bob", from: undefined, text: "Hi", facts: [] });
  assert.equal(headed({ event: "chat.message", data: { from: "Bob" } }).from, "Bob");
  const long = "x".repeat(500);
  assert.deepEqual(headed({ event: null, data: long }), { heading: "Message", from: undefined, text: long, facts: [] });
});
