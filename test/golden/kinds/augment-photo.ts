import { imageOf } from "../augment/images.js";
import type { Kind } from "../kind.js";

/** The photo that other files are made from. Nothing is computed from it alone. */
export const augmentPhoto: Kind = {
  name: "augment photo",
  matches: (golden) => golden.has("inputs.photo") && golden.names("outputs.").length === 0,
  run(golden, check) {
    const { height, width, channels, pixels } = imageOf(golden, "inputs.photo");
    check.equal("size", [height, width], golden.config.HxW ?? [height, width]);
    check.equal("channels", channels, 3);
    check.holds("pixels", pixels.length === height * width * 3, "a photo of other than 3 channels");
  },
};
