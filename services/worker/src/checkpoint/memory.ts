/** Memory that checkpoints are written from and read into: in huge pages where the engine's addon can ask for them. */
import { adviseHugePages } from "@paddock/engine/pages";
import { PieceMemory, type ReadBuffers, readBuffers } from "@paddock/service-kit/checkpoint-store";

/** Of a save. */
export function newPieceMemory(): PieceMemory {
  return new PieceMemory(adviseHugePages);
}

/** Of a load. @param bytes of the largest file that is to be read with them */
export function newReadBuffers(count: number, bytes: number): ReadBuffers {
  return readBuffers(count, bytes, adviseHugePages);
}
