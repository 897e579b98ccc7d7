/** The protocol's version, and where its sources lie. */
import { fileURLToPath } from "node:url";

/**
 * Sent in Hello and Welcome. Minor versions only add fields and kinds, which the other side ignores; another major
 * version is refused.
 */
export const protocolVersion = { major: 2, minor: 1 } as const;

/** The root that imports between .proto files are relative to, an absolute path; it ships with the package. */
export const protoRoot = fileURLToPath(new URL("..", import.meta.url));

/** The .proto files, relative to `protoRoot`: for reflection. */
export const protoFiles = ["paddock/v1/run.proto", "paddock/v1/worker.proto"] as const;
