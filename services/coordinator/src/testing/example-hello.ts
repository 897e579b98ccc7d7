import { type Hello, protocolVersion } from "@paddock/proto";

/** What a worker on this machine says first. */
export const exampleHello: Hello = {
  version: protocolVersion,
  workerName: "w0",
  host: "localhost",
  pid: 1,
  engine: "fake",
  device: "none",
  threads: 1,
  peerAddress: "127.0.0.1:1",
  holdings: [],
};
