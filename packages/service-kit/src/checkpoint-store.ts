/** Where checkpoints are stored. A door of its own: the checkpoint thread starts without the rest of service-kit. */
import { folderStore } from "./storage/folder-store.js";
import { isS3 } from "./storage/location.js";
import { s3Store } from "./storage/s3-store.js";
import type { CheckpointStore } from "./storage/store.js";

export { absolutePlace, checkpointRoot, childOf, isS3, parentOf } from "./storage/location.js";
export {
  type AdviseHugePages,
  PieceMemory,
  pieceBytes,
  type ReadBuffers,
  readBuffers,
} from "./storage/piece-memory.js";
export type { PieceReader } from "./storage/pieces.js";
export type { CheckpointStore, NewFile, StoredFile } from "./storage/store.js";

/** The store of a place: S3-compatible storage for `s3://bucket/...`, else the file system. */
export function storeOf(place: string): CheckpointStore {
  return isS3(place) ? s3Store : folderStore;
}
