/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";

export const kinds: readonly Kind[] = [];
