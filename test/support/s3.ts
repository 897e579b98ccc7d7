/** An S3 server of the test's own, on a free port: rclone, which keeps buckets as folders and objects as files. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "./redis.js";

export interface TestS3 {
  /** What makes a client talk to it. */
  readonly environment: Readonly<Record<string, string>>;
  readonly port: number;
  /** Of a bucket that is there. */
  readonly bucket: string;
  /** The bucket's folder: what lies there are its objects. */
  readonly folder: string;
  /** Kills it; what was uploaded in part is lost. */
  stop(): Promise<void>;
  /** Another one on the same port and folder. */
  start(): Promise<void>;
}

const rclone = ["../../", "../../../"]
  .map((up) => fileURLToPath(new URL(`${up}.rclone/bin/rclone`, import.meta.url)))
  .find(existsSync);

/** Why there can be no server; undefined: there can. */
export const whyNoS3 =
  rclone === undefined ? "(skipped: no .rclone/bin/rclone; npm test installs it)" : undefined;

const keys = { id: "testkeyid", secret: "testsecretkey" };

export async function startTestS3(directory: string): Promise<TestS3> {
  const bucket = "checkpoints";
  const root = join(directory, "s3");
  const folder = join(root, bucket);
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  let child: ChildProcess | undefined;
  const start = async (): Promise<void> => {
    child = spawn(
      rclone as string,
      [
        ...[
          "serve",
          "s3",
          "--addr",
          `127.0.0.1:${port}`,
          "--auth-key",
          `${keys.id},${keys.secret}`,
        ],
        // Files are changed behind its back. (With 0 two uploads to one folder wait for each other.)
        ...["--dir-cache-time", "1ms", "--config", "", root],
      ],
      { stdio: "ignore" },
    );
    await answers(port);
  };
  const stop = async (): Promise<void> => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  await start();
  return {
    environment: {
      AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}`,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: keys.id,
      AWS_SECRET_ACCESS_KEY: keys.secret,
    },
    port,
    bucket,
    folder,
    start,
    stop,
  };
}

/** Waits until somebody listens. */
async function answers(port: number): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt++) {
    const socket = connect(port, "127.0.0.1");
    const isOpen = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`nobody listens on port ${port}`);
}
