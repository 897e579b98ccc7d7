/** What the engine thread asks of the outside, always on behalf of the generation that runs now. */
import { PaddockError } from "@paddock/contract";
import type { HostCalls } from "../engine/calls.js";
import type { Generation } from "./generation.js";

/** @param running the generation that runs, if one does */
export function hostCallsOf(running: () => Generation | undefined): HostCalls {
  const current = (): Generation => {
    const generation = running();
    if (generation) return generation;
    throw new PaddockError("stale-generation", "no generation is running");
  };
  return {
    fetchUnit: async ({ step, part, expectedBytes, everyone }) => {
      const { exchange, membership } = current();
      const { generation, worker, workers } = membership;
      const key = { generation, step, key: "weights" };
      if (everyone) return await exchange.gather(key, part, expectedBytes);
      return await Promise.all(
        Array.from({ length: workers }, (_, peer) =>
          peer === worker ? new Uint8Array(0) : exchange.fetch(key, peer, part),
        ),
      );
    },
    allToAll: ({ step, key, outgoing, expectedBytes }) => {
      const { exchange, membership } = current();
      const { generation } = membership;
      return exchange.allToAll({ generation, step, key }, outgoing, expectedBytes);
    },
    phase: ({ step, phase }) => running()?.progress(step, phase),
  };
}
