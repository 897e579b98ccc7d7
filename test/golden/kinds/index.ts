/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";
import { dinoHead } from "./dino-head.js";
import { dinoLoss, dinoLossV1 } from "./dino-loss.js";
import { gramLossKind, gramResize } from "./gram.js";
import { ibotLoss } from "./ibot-loss.js";
import { koleoLoss } from "./koleo-loss.js";

export const kinds: readonly Kind[] = [
  dinoHead,
  dinoLossV1,
  dinoLoss,
  ibotLoss,
  koleoLoss,
  gramLossKind,
  gramResize,
];
