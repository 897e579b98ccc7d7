import { z } from "zod";

/** SHA-256 of a checkpoint's manifest.json or of a file of weights, in lower-case hex; null: not checked. */
export const originHash = z
  .string()
  .regex(/^[0-9a-f]{64}$/, "expected a SHA-256 in lower-case hex")
  .nullable()
  .default(null);
