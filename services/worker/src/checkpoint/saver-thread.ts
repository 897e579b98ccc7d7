/** The thread in which checkpoints are copied, hashed and written. */
import { parentPort } from "node:worker_threads";
import { invariant } from "@paddock/contract";
import { serveSaves } from "./serve-saves.js";

invariant(parentPort, "saver-thread.js runs as a worker_thread");
serveSaves(parentPort);
