/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";
import { dinoStep } from "./dino-step.js";
import { optimizers } from "./optimizers.js";
import { dinoParameterGroups, parameterGroups } from "./parameter-groups.js";
import { dinoSchedules, schedulesOfV2, schedulesOfV3 } from "./schedules.js";

export const kinds: readonly Kind[] = [
  dinoSchedules,
  schedulesOfV2,
  schedulesOfV3,
  dinoParameterGroups,
  parameterGroups,
  optimizers,
  dinoStep,
];
