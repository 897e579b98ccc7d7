/** Names of places: paths of folders, and locations that begin with `s3://`. */
import { dirname, join, resolve } from "node:path";

const s3Scheme = "s3://";

/** Whether a place is in S3-compatible storage, not in a file system. */
export function isS3(place: string): boolean {
  return place.startsWith(s3Scheme);
}

/** Bucket and key of a place `s3://bucket/key`. */
export function s3NameOf(place: string): { readonly bucket: string; readonly key: string } {
  const [bucket = "", ...parts] = place.slice(s3Scheme.length).split("/");
  return { bucket, key: parts.join("/") };
}

/** A place below another one. */
export function childOf(place: string, name: string): string {
  return isS3(place) ? `${place}/${name}` : join(place, name);
}

/** The place that this one, absolute, lies in. */
export function parentOf(place: string): string {
  return isS3(place) ? place.slice(0, place.lastIndexOf("/")) : dirname(place);
}

/** Absolute; a relative path is taken from `folder`. */
export function absolutePlace(place: string, folder = "."): string {
  return isS3(place) ? place : resolve(folder, place);
}

/**
 * Where the checkpoints of a run lie, each in `<root>/<step>`: in its run directory, or below `storage` under its id, so that runs may share that.
 * @param storage `checkpoint.storage` of its spec
 */
export function checkpointRoot(run: {
  readonly storage: string | null;
  readonly runDir: string;
  readonly runId: string;
}): string {
  return run.storage === null ? join(run.runDir, "checkpoints") : childOf(run.storage, run.runId);
}
