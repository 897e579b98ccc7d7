/** Where checkpoints are stored. A door of its own: the checkpoint thread starts without the rest of service-kit. */
import { folderStore } from "./storage/folder-store.js";
import type { CheckpointStore } from "./storage/store.js";

export { absolutePlace, childOf, parentOf } from "./storage/location.js";
export { PieceMemory, type PieceReader, pieceBytes, readBuffers } from "./storage/pieces.js";
export type { CheckpointStore, NewFile, StoredFile } from "./storage/store.js";

/** The store of a place. */
export function storeOf(_place: string): CheckpointStore {
  return folderStore;
}
