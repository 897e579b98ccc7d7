/** Which elements of a file's tensors fill which elements of a backbone's parameters; refuses files that fit only in part. */
import { PaddockError } from "../errors.js";
import type { Detected, Shapes } from "./detect.js";
import { dialectNamed } from "./dialects.js";
import type { BackboneShape } from "./shape.js";
import type { ForeignTensor } from "./tensor.js";

/** Elements [first, first + elements) of a parameter come from [at, at + elements) of a tensor of the file. */
export interface Piece {
  readonly tensor: string;
  readonly at: number;
  readonly first: number;
  readonly elements: number;
}

export interface ImportPlan {
  /** By parameter, in order of `first`. What no piece covers is zero. A parameter that is not here keeps its initial value. */
  readonly pieces: ReadonlyMap<string, readonly Piece[]>;
  /** Constants in the file that must have their values, by their names there. */
  readonly constants: ReadonlyMap<string, ForeignTensor>;
}

/** Throws `invalid-argument` with every difference when the file is not exactly such a backbone. */
export function planImport(
  tensors: Shapes,
  detected: Detected,
  shape: BackboneShape,
  file: string,
): ImportPlan {
  const expected = dialectNamed(detected.dialect).tensors(shape);
  const problems = [
    ...differences(shape, detected),
    ...tensorProblems(expected, detected, tensors),
  ];
  if (problems.length > 0) throw refused(file, detected, problems);
  const pieces = new Map<string, Piece[]>();
  const constants = new Map<string, ForeignTensor>();
  for (const tensor of expected) {
    const actual = detected.names.get(tensor.name);
    if (actual === undefined) continue;
    if (tensor.copies.length === 0) constants.set(actual, tensor);
    for (const { parameter, first, at, elements, added } of tensor.copies) {
      if (added) continue;
      const list = pieces.get(parameter) ?? [];
      list.push({ tensor: actual, at, first, elements });
      pieces.set(parameter, list);
    }
  }
  for (const list of pieces.values()) list.sort((a, b) => a.first - b.first);
  return { pieces, constants };
}

/** In words of a spec, where it and the file say different things. */
function differences(shape: BackboneShape, detected: Detected): string[] {
  const { shape: received } = detected;
  return (Object.keys(received) as (keyof BackboneShape)[])
    .filter((field) => shape[field] !== received[field] && !unseen(field, shape, detected))
    .map((field) => difference(field, shape, received));
}

/** What no shape shows, or what a file need not have. */
function unseen(
  field: keyof BackboneShape,
  shape: BackboneShape,
  { shape: received, headsFrom, dialect }: Detected,
): boolean {
  switch (field) {
    case "heads":
      return headsFrom === "head width 64";
    case "gridSide":
      return shape.positions === "rope" || received.positions === "rope";
    case "untieLocalClsNorm":
      return shape.untieLocalClsNorm;
    case "maskKeyBias":
      return dialect === "dinov3" && shape.maskKeyBias; // a file without the mask
    case "layerScale":
      return received.layerScale && dialect.startsWith("transformers-dino"); // which must be ones then
    default:
      return false;
  }
}

function difference(
  field: keyof BackboneShape,
  shape: BackboneShape,
  received: BackboneShape,
): string {
  const [ours, theirs] = [shape[field], received[field]];
  if (field !== "gridSide") {
    const name = field === "hidden" ? "model.mlpRatio (hidden features)" : `model.${field}`;
    return `${name}: expected ${ours} (the spec), received ${theirs} (the file)`;
  }
  const size = received.gridSide * received.patchSize;
  return (
    `positions: expected a grid of ${ours} x ${ours} (crops.global.size / model.patchSize), received ${theirs} x ${theirs}; ` +
    `set crops.global.size to ${size}, or resample the file once: paddock import <file> --grid ${ours} --out <new file>`
  );
}

function tensorProblems(
  expected: readonly ForeignTensor[],
  { names }: Detected,
  tensors: Shapes,
): string[] {
  const problems: string[] = [];
  const known = new Set<string>();
  for (const { name, shape, presence } of expected) {
    known.add(name);
    const actual = names.get(name);
    const received = actual === undefined ? undefined : tensors.get(actual);
    const want = `[${shape.join(", ")}]`;
    if (received === undefined) {
      if (presence === "always") problems.push(`${name}: expected ${want}, received none`);
    } else if (`[${received.join(", ")}]` !== want) {
      problems.push(`${name}: expected ${want}, received [${received.join(", ")}]`);
    }
  }
  for (const [name, actual] of names) {
    if (!known.has(name)) problems.push(`${actual}: expected no such tensor`);
  }
  return problems;
}

const shown = 12;

function refused(file: string, { dialect }: Detected, problems: readonly string[]): PaddockError {
  const lines = problems.slice(0, shown);
  if (problems.length > shown) lines.push(`and ${problems.length - shown} more`);
  return new PaddockError(
    "invalid-argument",
    `${file} (${dialectNamed(dialect).title}) is not the backbone of the spec; nothing was loaded:\n  ${lines.join("\n  ")}\n` +
      "paddock import <file> prints the model that it holds",
  );
}
