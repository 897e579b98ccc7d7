/**
 * Calls every function of the addon with wrong arguments, in a process of its own: `node fuzz.mjs <addon> <seed> <calls> <journal>`.
 * Each call must return or throw an Error that names the function; a crash is seen by the parent, and the journal holds the last
 * call. Prints one JSON line {calls, errors, bad}: `bad` lists what was neither.
 */
import * as fs from "node:fs";
import { createRequire } from "node:module";

const [addon, seed, callsPerFunction, journal] = process.argv.slice(2);
const native = createRequire(import.meta.url)(addon);
const { shared } = native;
const listsFrom = 1024; // resultInts
const listRoom = shared.length - listsFrom;

/**
 * Parameters by letter: t tensor, o optional tensor, i integer, n number, b boolean, d dtype, l list of ints, h list of tensors,
 * a typed array, s text. After the colon what comes back: H a tensor, R several, V nothing to free.
 */
const signatures = signaturesOf({
  "t:H": `abs acos acosh asin asinh atan atanh ceil cos cosh elu erf exp expm1 floor isFinite isInf isNan log log1p logicalNot neg
    onesLike reciprocal relu relu6 round rsqrt selu sigmoid sign sin sinh softplus sqrt square tan tanh zerosLike gelu swiglu diag
    nonzero`,
  "tt:H": `add atan2 bitwiseAnd div eluGrad equal floorDiv greater greaterEqual less lessEqual logicalAnd logicalOr logicalXor
    maximum minimum mod mul notEqual pow prelu squaredDifference sub geluBackward swigluBackward gatherRows gatherNd
    sinkhornColumns sinkhornRows`,
  "tlb:H": "all any max mean min prod sum",
  "tibb:H": "cumprod cumsum",
  "adl:H": "fromArray borrow",
  "td:V": "read",
  "tda:V": "readInto",
  "t:V": "free",
  "s:V": "setDevice ncclVersion",
  ":V": "ncclPath freeAll numTensors numBytes cachedBytes productLibrary cudaDevices synchronize",
  "i:V": "setThreads ncclPoll ncclAbort",
  "aii:V": "ncclOpen",
  "ihh:V": "ncclAllToAll",
  "h:H": "addN",
  "td:H": "cast",
  "tnn:H": "clip",
  "tn:H": "leakyRelu step",
  "ttt:H": "select scatterUpdate scatterAddRows l2NormalizeBackward sinkhornFinish maskRows",
  "ti:H": "argMax argMin softmax logSoftmax toPrecision",
  "tt:R": "weightNorm maskRowsBackward",
  "tttt:R": "weightNormBackward",
  "thh:R": "mlp",
  "tthhb:R": "mlpBackward",
  "tiinn:R": "koleo",
  "tnn:R": "sinkhornStart",
  "ttoooi:H": "sequenceRows",
  "toiib:R": "sequenceRowsBackward",
  "tl:H": "reshape permute broadcastTo tile flip",
  "tii:H": "selectAt",
  "tll:H": "slice",
  "tlll:H": "stridedSlice",
  "hi:H": "concat stack",
  "tln:H": "pad",
  "tllb:H": "mirrorPad",
  "lnd:H": "fill",
  "nnid:H": "range",
  "ttii:H": "gather",
  "tti:H": "segmentSum",
  "ttl:H": "scatterNd",
  "tinnd:H": "oneHot",
  "ti:R": "topK",
  "b:V": "allowTf32",
  "ttb:H": "searchSorted",
  "toib:H": "bincount",
  "sh:H": "einsum",
  "tttoon:H": "batchNorm",
  "ttllllb:H": "convolution",
  "ttlllllb:H": "convolutionGradInput convolutionGradFilter",
  "tllll:H": "averagePool maxPool",
  "ttllll:H": "averagePoolGrad maxPoolGrad",
  "tiibbb:H": "resize resizeGrad",
  "ttbb:H": "matmul",
  "ttob:H": "linear",
  "tttbb:R": "linearBackward",
  "tttn:R": "layerNorm",
  "ttttt:R": "layerNormBackward",
  "tn:R": "l2Normalize",
  "tttiilbb:V": "rope",
  "til:R": "attention",
  "ttttil:H": "attentionBackward",
  "ttooo:H": "scaledAdd",
  "ttooo:R": "scaledAddBackward",
  "ttttn:R": "crossEntropy",
  "aaaannnnnn:V": "flatAdamw",
  "aan:V": "flatEma",
  "aa:V": "flatEncodeHalf flatDecodeHalf flatAdd",
  "a:V": "ncclUniqueId flatRoundHalf flatAllFinite deviceMemory",
  "an:V": "flatScale",
  "aia:V": "flatSumSquares",
  "hhhhllnnnnnn:V": "vectorAdamw",
  "titiin:V": "vectorEma",
  "titii:V": "vectorCopy vectorAdd",
  "tiin:V": "vectorScale",
  "tii:V": "vectorRoundHalf",
  "tia:V": "vectorRead vectorWrite vectorEncodeHalf vectorDecodeHalf",
  "hllia:V": "vectorSumSquares",
  "tllll:R": "cut",
  "hli:H": "join",
});

function signaturesOf(table) {
  const all = new Map();
  for (const [signature, names] of Object.entries(table)) {
    const [parameters = "", result = "V"] = signature.split(":");
    for (const name of names.split(/\s+/)) all.set(name, { parameters, result });
  }
  return all;
}

/**
 * Right arguments of functions that random ones would never get far into: tensors by shape (float32, or int32 after "i"), lists,
 * and plain values. Each call changes some of them.
 */
const f = (...shape) => ({ shape, dtype: 0 });
const rows = (...values) => ({ values });
const list = (...values) => ({ list: values });
const floats = (length) => ({ array: Float32Array, length });
const recipes = {
  averagePool: [f(1, 4, 4, 2), list(2, 2), list(1, 1), list(0, 0), list(0, 0)],
  averagePoolGrad: [f(1, 3, 3, 2), f(1, 4, 4, 2), list(2, 2), list(1, 1), list(0, 0), list(0, 0)],
  maxPool: [f(1, 4, 4, 2), list(2, 2), list(1, 1), list(0, 0), list(0, 0)],
  maxPoolGrad: [f(1, 3, 3, 2), f(1, 4, 4, 2), list(2, 2), list(1, 1), list(0, 0), list(0, 0)],
  convolution: [
    f(1, 4, 4, 2),
    f(2, 2, 2, 3),
    ...[list(1, 1), list(0, 0), list(0, 0), list(1, 1)],
    false,
  ],
  convolutionGradInput: [
    ...[f(1, 3, 3, 3), f(2, 2, 2, 3), list(1, 1), list(0, 0), list(0, 0), list(1, 1)],
    ...[list(1, 4, 4, 2), false],
  ],
  convolutionGradFilter: [
    ...[f(1, 4, 4, 2), f(1, 3, 3, 3), list(1, 1), list(0, 0), list(0, 0), list(1, 1)],
    ...[list(2, 2, 2, 3), false],
  ],
  resize: [f(1, 4, 4, 2), 3, 5, true, false, false],
  resizeGrad: [f(1, 3, 5, 2), 4, 4, true, false, false],
  linear: [f(6, 12), f(4, 12), f(4), false],
  linearBackward: [f(6, 4), f(6, 12), f(4, 12), true, true],
  layerNorm: [f(6, 12), f(12), f(12), 1e-6],
  layerNormBackward: [f(6, 12), f(6, 12), f(6), f(6), f(12)],
  l2NormalizeBackward: [f(6, 12), f(6, 12), f(6)],
  batchNorm: [f(6, 12), f(12), f(12), f(12), f(12), 1e-3],
  // Heads of whole vectors: the addon's own loops.
  attention: [f(6, 48), 2, list(2, 3)],
  attentionBackward: [f(6, 16), f(6, 48), f(6, 16), f(12), 2, list(2, 3)],
  weightNorm: [f(6, 4), f(6)],
  weightNormBackward: [f(6, 4), f(6), f(6, 4), f(6)],
  koleo: [f(6, 4), 1, 2, 0.1, 1e-8],
  sinkhornColumns: [f(3, 6), f(3, 1)],
  sinkhornRows: [f(3, 6), f(6)],
  sinkhornFinish: [f(3, 6), f(6), f(3, 1)],
  sequenceRows: [f(6, 4), f(4), f(2, 4), f(10, 4), f(3, 9), 2],
  sequenceRowsBackward: [f(12, 4), f(3, 9), 2, 2, true],
  maskRows: [f(6, 4), f(6, 1), f(4)],
  maskRowsBackward: [f(6, 4), f(6, 1)],
  rope: [f(6, 24), f(2, 2), f(2, 2), 2, 1, list(2, 3), false, false],
  scaledAdd: [f(6, 4), f(3, 4), f(4), rows(0, 5, 5), f(3)],
  scaledAddBackward: [f(6, 4), f(3, 4), f(4), rows(0, 5, 5), f(3)],
  scatterAddRows: [f(6, 4), f(3, 4), rows(0, 5, 5)],
  gatherRows: [f(6, 4), rows(0, 5, 5)],
  crossEntropy: [f(3, 12), f(2, 12), rows(0, 1, 1), f(3), 0.1],
  gather: [f(4, 6), rows(0, 3, 3), 0, 0],
  segmentSum: [f(3, 4), rows(0, 1, 1), 2],
  scatterNd: [rows(0, 3), f(2), list(4)],
  scatterUpdate: [f(4), rows(0, 3), f(2)],
  bincount: [rows(0, 3, 3), f(3), 4, false],
  searchSorted: [f(2, 3), f(2, 3), false],
  slice: [f(4, 6), list(0, 1), list(4, 2)],
  stridedSlice: [f(4, 6), list(0, 5), list(4, 0), list(2, -2)],
  mirrorPad: [f(4, 6), list(1, 1), list(1, 1), true],
  pad: [f(4, 6), list(1, 1, 0, 2), 0],
  flatAdamw: [...[floats(8), floats(8), floats(8), floats(8)], ...[1e-3, 0.9, 0.999, 1e-8, 0.1, 1]],
  flatEncodeHalf: [floats(8), { array: Uint16Array, length: 8 }],
  flatDecodeHalf: [{ array: Uint16Array, length: 8 }, floats(8)],
  flatAdd: [floats(8), floats(8)],
  flatSumSquares: [floats(8), 4, { array: Float64Array, length: 2 }],
};

// --- arguments ------------------------------------------------------------------------------------------

let state = Number(seed) >>> 0;
/** mulberry32, in [0, 1). */
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (count) => Math.floor(random() * count);
const oneOf = (choices) => choices[below(choices.length)];
const chance = (probability) => random() < probability;
const listOf = (length, of) => Array.from({ length }, of);

const sizes = [0, 1, 1, 2, 2, 3, 3, 4, 6, 12];
const wildInts = [-(2 ** 31), -100, -5, -1, 64, 70_000, 2 ** 30, 2 ** 31 - 1];
const tameInts = [-2, -1, 0, 0, 1, 1, 1, 2, 2, 3, 4, 6, 12];
const anyInt = () => oneOf(chance(0.2) ? wildInts : tameInts);
const numbers = [Number.NaN, Number.POSITIVE_INFINITY, -1, 0, 1e-6, 0.5, 1, 3, 1e300];
const texts = [
  "ij,jk->ik",
  "i,i->",
  "bij,bjk->bik",
  "ii",
  "...,...",
  "->",
  "",
  "ij->k",
  "cpu",
  "meta",
  "cuda:7",
  "\0",
];
const arrays = [Float32Array, Float64Array, Int32Array, Uint16Array, Uint8Array, BigInt64Array];
const nonsense = [undefined, null, "4", {}, [], Number.NaN, 2 ** 40, -0.5, 7n, Symbol("s")];

/** Tensors of every dtype in every shape that comes up, views among them; kept for all calls. */
const tensors = [];

function makeTensors() {
  const shapes = [[], [0], [1], [3], [12], [2, 3], [0, 3], [3, 0], [4, 6], [6, 12], [2, 3, 4]];
  for (const dtype of [0, 0, 1, 2]) {
    for (const shape of shapes) keep(tensorOf(shape, dtype));
    for (let i = 0; i < 20; i++)
      keep(
        tensorOf(
          listOf(below(6), () => oneOf(sizes)),
          dtype,
        ),
      );
    keep(view("permute", tensorOf([6, 12], dtype), [1, 0]));
    keep(view("broadcastTo", tensorOf([1], dtype), [4096]));
    keep(view("broadcastTo", tensorOf([1, 4], dtype), [3, 4]));
    keep(view("stridedSlice", tensorOf([12], dtype), [0], [12], [5]));
    keep(native.selectAt(tensorOf([6, 12], dtype), 1, 3));
    // Low precision, where the build has it.
    for (const shape of dtype === 0 && native.toPrecision ? shapes : []) {
      keep(native.toPrecision(tensorOf(shape, dtype), 1 + below(2)));
    }
  }
}

function keep(handle) {
  tensors.push(handle);
}

/** An op of one tensor and lists. */
function view(name, x, ...lists) {
  shared.set(lists.flat(), listsFrom);
  return native[name](x, ...lists.map(({ length }) => length));
}

function tensorOf(shape, dtype) {
  const count = shape.reduce((a, b) => a * b, 1);
  const value = [() => (chance(0.05) ? oneOf(numbers) : random() * 4 - 2), anyInt, () => below(2)][
    dtype
  ];
  const values = [Float32Array, Int32Array, Uint8Array][dtype].from({ length: count }, value);
  shared.set(shape, listsFrom);
  return native.fromArray(values, dtype, shape.length);
}

/** Where the next list of the call goes. */
let listEnd = listsFrom;
/** Tensors made for one call. */
const passing = [];

function write(values) {
  const room = values.slice(0, shared.length - listEnd);
  shared.set(room, listEnd);
  listEnd += room.length;
  return values.length;
}

const stale = [];
const badHandle = () => oneOf([0, -1, -2, 1, 2 ** 31 - 1, -(2 ** 31), 123_456, ...stale]);
const anyTensor = () => (chance(0.05) ? badHandle() : oneOf(tensors));
const badLength = () => oneOf([-1, -(2 ** 31), 2 ** 31 - 1, listRoom + 1, 1_000_000]);

/** An argument by its letter; most are of the right type. */
const make = {
  t: anyTensor,
  o: () => (chance(0.3) ? -1 : anyTensor()),
  i: anyInt,
  n: () => oneOf(numbers),
  b: () => chance(0.5),
  d: () => oneOf([0, 0, 1, 2, 3, -1, 2 ** 31 - 1]),
  l: () => (chance(0.05) ? badLength() : write(listOf(chance(0.02) ? 70 : below(6), anyInt))),
  h: () => (chance(0.05) ? badLength() : write(listOf(below(4), anyTensor))),
  a: () => new (oneOf(arrays))(oneOf([0, 1, 2, 3, 4, 8, 12, 24])),
  s: () => oneOf(texts),
};

function right(example) {
  if (example?.shape) {
    passing.push(tensorOf(example.shape, example.dtype));
    return passing.at(-1);
  }
  if (example?.values) {
    shared[listsFrom] = example.values.length;
    passing.push(native.fromArray(Int32Array.from(example.values), 1, 1));
    return passing.at(-1);
  }
  if (example?.list) return write(example.list);
  if (example?.array) return new example.array(example.length);
  return example;
}

/** The arguments of one call of `name`. Tensors come first: making one writes the shared array. */
function argumentsOf(name, parameters) {
  const recipe = chance(0.8) ? recipes[name] : undefined;
  const mutate = recipe === undefined ? 1 : 0.25;
  const how = [...parameters].map((letter, i) => {
    if (chance(0.01)) return () => oneOf(nonsense);
    return chance(mutate) ? make[letter] : () => right(recipe[i]);
  });
  const isList = (i) => "lh".includes(parameters[i]);
  const given = how.map((of, i) => (isList(i) ? undefined : of()));
  listEnd = listsFrom;
  for (const [i, of] of how.entries()) if (isList(i)) given[i] = of();
  return given;
}

// --- calls ----------------------------------------------------------------------------------------------

const codes = new Set(["engine-op", "out-of-memory"]);
const outcome = { calls: 0, errors: 0, bad: [] };

function freeResults(result, value) {
  if (result === "H") native.free(value);
  if (result !== "R") return;
  let at = 0;
  for (let i = 0; i < value; i++) {
    native.free(shared[at]);
    at += 2 + shared[at + 1];
  }
}

function callOnce(name, { parameters, result }) {
  const given = argumentsOf(name, parameters);
  // Done as asked: 17 GB, where no limit of memory makes an error of it.
  if (name === "range" && given[2] > 2 ** 26) given[2] = 2 ** 26;
  const text = `${name}(${given.map(shown).join(", ")})`;
  fs.writeSync(diary, `${text}\n`.padEnd(400), 0);
  outcome.calls++;
  try {
    freeResults(result, native[name](...given));
  } catch (error) {
    outcome.errors++;
    const named = error instanceof Error && error.message.startsWith(`${name}: `);
    const clear = named && codes.has(error.code) && !error.message.includes("INTERNAL ASSERT");
    if (!clear) outcome.bad.push(`${text}: ${error?.code} ${error?.message}`);
  }
  for (const handle of passing.splice(0)) if (name !== "free") native.free(handle);
}

function shown(value) {
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${value.length})`;
  if (!Number.isInteger(value) || !tensors.includes(value)) return String(value);
  return `tensor ${tensors.indexOf(value)}`;
}

/** What would end the run by doing as asked. */
function mayCall(name) {
  return name !== "freeAll" && name !== "free";
}

const diary = fs.openSync(journal, "w");
const missing = Object.keys(native).filter((name) => name !== "shared" && !signatures.has(name));
if (missing.length > 0) outcome.bad.push(`no signature of ${missing.join(", ")}`);
native.setThreads(1);
makeTensors();
for (let i = 0; i < 8; i++) {
  const handle = tensorOf([2], 0);
  native.free(handle);
  stale.push(handle);
}
const before = native.numTensors();
const [left, product] = [tensorOf([2, 2], 1), []];
for (const [name, signature] of signatures) {
  if (!(name in native)) continue; // another build
  const calls = mayCall(name) ? Number(callsPerFunction) : 0;
  for (let i = 0; i < calls; i++) callOnce(name, signature);
  // Nothing was left over, freed or overwritten on the way.
  if (native.numTensors() !== before + 1)
    outcome.bad.push(`${name} left ${native.numTensors() - before - 1} tensors`);
  product.push([...new Int32Array(native.read(left, 1))].join());
  if (product.at(-1) !== product[0]) outcome.bad.push(`${name} changed a tensor it was not given`);
}
for (const bad of [...stale, 0, -1, 2 ** 31 - 1]) {
  try {
    native.free(bad);
    outcome.bad.push(`free(${bad}) freed something`);
  } catch {
    // as it should
  }
}
native.freeAll();
if (native.numTensors() !== 0 || native.numBytes() !== 0)
  outcome.bad.push("freeAll left something");
fs.writeSync(1, `${JSON.stringify(outcome)}\n`);
