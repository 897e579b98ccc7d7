/** The worker_thread that saves and loads checkpoints beside the training, for a worker's whole life. */
import { parentPort } from "node:worker_threads";
import { invariant } from "@paddock/contract";
import { createRpc } from "../engine/rpc.js";
import type { CheckpointCalls, CheckpointHostCalls } from "./thread-calls.js";
import { checkpointCalls } from "./thread-work.js";

invariant(parentPort, "checkpoint-thread.js runs as a worker_thread");

const host = createRpc<CheckpointHostCalls, CheckpointCalls>(
  parentPort,
  checkpointCalls((name, id) => void host.call(name, { id })),
);
