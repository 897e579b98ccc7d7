/** Memory that checkpoints are written from and read into: in huge pages where the engine's addon can ask for them. */
import { adviseHugePages } from "@paddock/engine/pages";
import { PieceMemory } from "@paddock/service-kit/checkpoint-store";

export function newPieceMemory(): PieceMemory {
  return new PieceMemory(adviseHugePages);
}
