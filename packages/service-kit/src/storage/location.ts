/** Names of places: paths of folders, and locations that begin with `s3://`. */
import { dirname, join, resolve } from "node:path";

const s3Scheme = "s3://";

/** Whether a place is in S3-compatible storage, not in a file system. */
function isS3(place: string): boolean {
  return place.startsWith(s3Scheme);
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
