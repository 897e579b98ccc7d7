/**
 * Builds the addon of the exchange `collective` into build/, against Debian's libgloo-dev or another Gloo that the compiler
 * finds. Where it cannot, tensors travel through Redis.
 */
import { buildSmallAddon } from "./small-addon.mjs";

buildSmallAddon({
  name: "collectives",
  without: 'exchange "collective" will use Redis',
  explain: (output) =>
    /GLOO_(INCLUDE|LIBRARY)/.test(output)
      ? "Gloo is not installed (Debian: libgloo-dev)"
      : undefined,
});
