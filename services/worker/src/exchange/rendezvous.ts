/**
 * How workers find each other for collectives, and agree on whether to use them: each tells each other at what address it
 * listens, then whether it is connected, as messages of the exchange through Redis. If one cannot, none does.
 */
import { CollectiveError, type Group } from "@paddock/engine";
import type { Exchange } from "./exchange.js";

export interface Meeting {
  /** For the messages; has entered the generation. */
  readonly messages: Pick<Exchange, "send" | "receive">;
  readonly generation: number;
  readonly worker: number;
  readonly workers: number;
  /** Not connected yet; or why this worker has none. */
  readonly group: Group | string;
}

/** What one worker tells another: an answer, or why it has none. */
type Told = { readonly answer: string } | { readonly why: string };

/**
 * Connects the group. Returns undefined, or why at least one worker cannot take part: the same outcome on every worker.
 * Rejects when a worker does not answer at all.
 */
export async function meet(meeting: Meeting): Promise<string | undefined> {
  const { group } = meeting;
  const listening = await attempt(group, async (mine) =>
    (await mine.listen()).map((address) => Buffer.from(address).toString("base64")),
  );
  const addresses = await tellAll(meeting, "addresses", listening);
  if ("why" in addresses) return addresses.why;
  const connecting = await attempt(group, async (mine) => {
    await mine.connect(addresses.answers.map((text) => Buffer.from(text, "base64")));
    return addresses.answers.map(() => "connected");
  });
  const connected = await tellAll(meeting, "connected", connecting);
  return "why" in connected ? connected.why : undefined;
}

async function attempt(
  group: Group | string,
  work: (group: Group) => Promise<string[]>,
): Promise<readonly string[] | string> {
  if (typeof group === "string") return group;
  try {
    return await work(group);
  } catch (thrown) {
    if (thrown instanceof CollectiveError && thrown.code !== "stale-generation") {
      return thrown.message;
    }
    throw thrown;
  }
}

/** Tells every peer its entry of `mine`, or why there is none; returns what they tell, or the first who has a reason. */
async function tellAll(
  { messages, generation, worker, workers }: Meeting,
  topic: string,
  mine: readonly string[] | string,
): Promise<{ readonly answers: readonly string[] } | { readonly why: string }> {
  const key = { generation, step: 0, key: `rendezvous.${topic}` };
  const told = await Promise.all(
    Array.from({ length: workers }, async (_, peer): Promise<Told> => {
      const said: Told = typeof mine === "string" ? { why: mine } : { answer: mine[peer] ?? "" };
      if (peer === worker) return said;
      const [bytes] = await Promise.all([
        messages.receive(key, peer),
        messages.send(key, peer, Buffer.from(JSON.stringify(said))),
      ]);
      return JSON.parse(Buffer.from(bytes).toString());
    }),
  );
  const answers: string[] = [];
  for (const [peer, said] of told.entries()) {
    if ("why" in said) return { why: `worker ${peer}: ${said.why}` };
    answers.push(said.answer);
  }
  return { answers };
}
