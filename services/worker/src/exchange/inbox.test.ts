import { PaddockError } from "@paddock/contract";
import { expect, test } from "vitest";
import { Inbox } from "./inbox.js";
import type { Sent } from "./tickets.js";

const limit = {
  timeoutMs: 30,
  expired: () => new PaddockError("exchange-timeout", "too late"),
};

/** One of the fragments of a message of 3 bytes: [0, 2) and [2, 3). */
function fragment(start: 0 | 2): Sent {
  const bytes = start === 0 ? 2 : 1;
  const payload = { name: `m@${start}`, bytes, pieceBytes: 8, crc32c: 0 };
  return { kind: "sent", bytes: 3, start, fragments: 2, payload };
}

const fillWith = (value: number) => async (target: Uint8Array) => void target.fill(value);

test("a message is whole when all its fragments are, in any order", async () => {
  const inbox = new Inbox();
  await inbox.add("m", fragment(2), fillWith(7));
  await expect(inbox.take("m", limit)).rejects.toMatchObject({ code: "exchange-timeout" });
  await inbox.add("m", fragment(0), fillWith(5));
  expect([...(await inbox.take("m", limit))]).toEqual([5, 5, 7]);
});

test("a fragment that comes again changes nothing: before the message is whole, after, and after it was taken", async () => {
  const inbox = new Inbox();
  await inbox.add("m", fragment(0), fillWith(5));
  await inbox.add("m", fragment(0), fillWith(9));
  await inbox.add("m", fragment(2), fillWith(7));
  await inbox.add("m", fragment(2), fillWith(9));
  expect([...(await inbox.take("m", limit))]).toEqual([5, 5, 7]);
  await inbox.add("m", fragment(0), fillWith(9));
  await inbox.add("m", fragment(2), fillWith(9));
  await expect(inbox.take("m", limit)).rejects.toMatchObject({ code: "exchange-timeout" });
});

test("a fragment that cannot be read fails the message, for those who wait and those who come later", async () => {
  const inbox = new Inbox();
  const early = expect(inbox.take("m", limit)).rejects.toMatchObject({ code: "exchange-corrupt" });
  const damaged = async () => {
    throw new PaddockError("exchange-corrupt", "a flipped bit");
  };
  await expect(inbox.add("m", fragment(0), damaged)).rejects.toThrow("a flipped bit");
  await early;
  await inbox.add("m", fragment(2), fillWith(7));
  await expect(inbox.take("m", limit)).rejects.toMatchObject({ code: "exchange-corrupt" });
});

test("what was pruned can come anew; after closing nothing does", async () => {
  const inbox = new Inbox();
  await inbox.add("old", fragment(0), fillWith(5));
  inbox.prune((name) => name === "old");
  await inbox.add("old", fragment(2), fillWith(1));
  await inbox.add("old", fragment(0), fillWith(2));
  expect([...(await inbox.take("old", limit))]).toEqual([2, 2, 1]);
  const reason = new PaddockError("stale-generation", "over");
  const waiting = expect(inbox.take("m", limit)).rejects.toBe(reason);
  inbox.close(reason);
  await waiting;
  await expect(inbox.take("m", limit)).rejects.toBe(reason);
});
