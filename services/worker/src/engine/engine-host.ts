/** The main thread's handle on the engine thread. */
import { Worker } from "node:worker_threads";
import { PaddockError } from "@paddock/contract";
import type { EngineCalls, HostCalls } from "./calls.js";
import { callsWithFailpoints } from "./failpoints.js";
import { createRpc, type Rpc } from "./rpc.js";

export interface EngineHost {
  readonly call: Rpc<EngineCalls>["call"];
  /** Ends the thread wherever it is; pending calls reject with `reason`. */
  terminate(reason: PaddockError): Promise<void>;
}

/** Starts the thread. If it dies, every pending call rejects with `run-failed` and what it died of. */
export function startEngineThread(host: HostCalls): EngineHost {
  const thread = new Worker(new URL("./engine-thread.js", import.meta.url));
  const rpc = createRpc<EngineCalls, HostCalls>(thread, callsWithFailpoints(host));
  thread.on("error", (error) => {
    rpc.fail(
      new PaddockError("run-failed", `the engine thread died: ${error.message}`, { cause: error }),
    );
  });
  thread.on("exit", (code) => {
    rpc.fail(new PaddockError("run-failed", `the engine thread exited with code ${code}`));
  });
  return {
    call: rpc.call,
    async terminate(reason) {
      rpc.fail(reason);
      await thread.terminate();
    },
  };
}
