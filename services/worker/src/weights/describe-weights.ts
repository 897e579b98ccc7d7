/** What a file of weights is, for people: its names, its backbone as a spec says it, and whether it loads. */
import {
  type BackboneShape,
  type Detected,
  detectWeights,
  layoutOf,
  modelBlockOf,
  parseRunSpec,
  type RunSpec,
  titleOf,
} from "@paddock/contract";
import { checkedPlan } from "./load-backbone.js";
import { openWeights, type WeightsFile } from "./weights-file.js";

export interface WeightsDescription {
  readonly path: string;
  /** In words: "transformers Dinov2Model". */
  readonly title: string;
  readonly detected: Detected;
  /** Values of the backbone. */
  readonly parameters: number;
  /** `model:` of a spec for it, without defaults. */
  readonly model: Readonly<Record<string, unknown>>;
  /** Pixels: crops.global.size of its position grid; null with rotary positions, which fit any. */
  readonly cropSize: number | null;
  /** Whether a config.json beside it says model.normEps; else it is the published models'. */
  readonly saysNormEps: boolean;
  /** Tensors of other parts, which are not loaded. */
  readonly leftOut: readonly string[];
  /** Parameters that the file lacks and that start from the seed. */
  readonly initial: readonly string[];
}

/**
 * Reads every value of the backbone. `spec`: that it must fit; else that which its own shapes make. Errors: `not-found`, and
 * `invalid-argument` with every difference.
 */
export async function describeWeights(path: string, spec?: RunSpec): Promise<WeightsDescription> {
  const file = await openWeights(path);
  try {
    const own = ownSpec(file);
    const { detected, plan } = await checkedPlan(file, spec ?? own.spec);
    const initial: string[] = [];
    let parameters = 0;
    for (const unit of layoutOf(spec ?? own.spec).units) {
      if (unit.submodule !== "backbone") continue;
      for (const { name, elements } of unit.parameters) {
        parameters += elements;
        const pieces = plan.pieces.get(name);
        if (!pieces) initial.push(name);
        for (const piece of pieces ?? []) await file.read(piece.tensor, piece.at, piece.elements);
      }
    }
    const { leftOut } = detected;
    const { model, cropSize } = own;
    const title = titleOf(detected);
    const saysNormEps = file.normEps !== undefined;
    return {
      path: file.path,
      title,
      model,
      cropSize,
      saysNormEps,
      detected,
      parameters,
      leftOut,
      initial,
    };
  } finally {
    await file.close();
  }
}

/** The spec that the file's shapes make, with the smallest heads there are. */
export function ownSpec(file: WeightsFile): {
  spec: RunSpec;
  model: Record<string, unknown>;
  cropSize: number | null;
} {
  const { shape } = detectWeights(file.tensors, file.heads);
  const model = modelBlockOf(shape, file.normEps ?? publishedNormEps(shape));
  const cropSize = shape.positions === "rope" ? null : shape.gridSide * shape.patchSize;
  const spec = parseRunSpec({
    steps: 1,
    batchPerRank: 2,
    model,
    data: { path: "." },
    crops: {
      global: { size: cropSize ?? 16 * shape.patchSize, scale: [0.4, 1] },
      local: { size: shape.patchSize, scale: [0.1, 0.4] },
      mean: new Array(shape.channels).fill(0.5),
      std: new Array(shape.channels).fill(0.5),
    },
  });
  return { spec, model, cropSize };
}

/** No shape shows it: DINOv3's models have 1e-5, the others 1e-6. */
function publishedNormEps({ positions }: BackboneShape): number {
  return positions === "rope" ? 1e-5 : 1e-6;
}
