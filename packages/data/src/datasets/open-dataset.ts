/** Opens a dataset of either kind, once per process; other threads open it by its source. */
import type { DataSpec } from "@paddock/contract";
import type { Dataset, Split } from "./dataset.js";
import { type FolderSource, folderDataset, readFolder } from "./folder.js";
import { type IdxSource, idxDataset, readIdx } from "./idx.js";

/** What a thread needs to open the same dataset without reading or listing it again. Buffers are shared, not copied, when posted. */
export type DatasetSource = FolderSource | IdxSource;

/** A dataset that other threads can open by its `source`. */
export interface SharedDataset extends Dataset {
  readonly source: DatasetSource;
}

/**
 * Opens the images of a split: lists a folder, or reads an IDX file into shared memory. Labels of both splits count the same classes.
 * Throws `data-unavailable` when there is nothing to read, or what is there is damaged; single undecodable images are only found by
 * `load`. A folder run without `validationPath` has no validation split: also `data-unavailable`.
 */
export async function openDataset(data: DataSpec, split: Split): Promise<SharedDataset> {
  const source = data.kind === "idx" ? await readIdx(data, split) : await readFolder(data, split);
  return datasetFrom(source);
}

/** The dataset behind a source that another thread opened. */
export function datasetFrom(source: DatasetSource): SharedDataset {
  const dataset = source.kind === "idx" ? idxDataset(source) : folderDataset(source);
  return { ...dataset, source };
}
