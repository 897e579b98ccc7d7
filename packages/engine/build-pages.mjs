/** Builds the addon that asks for huge pages for checkpoints into build/. Where it cannot, they have pages of 4 KiB. */
import { buildSmallAddon } from "./small-addon.mjs";

buildSmallAddon({ name: "pages", without: "checkpoints are written and read more slowly" });
