/** The S3 client: loaded, which takes a third of a second, when the first `s3://` place is used. */
import type { S3Client } from "@aws-sdk/client-s3";

export interface S3 {
  readonly sdk: typeof import("@aws-sdk/client-s3");
  readonly client: S3Client;
}

const connectMs = 5_000;
/** Without a byte: a piece of 8 MiB is on its way for longer on a slow line. */
const silenceMs = 30_000;

/**
 * Endpoint, region, credentials and attempts come from the environment and files that AWS documents (AWS_ENDPOINT_URL_S3, AWS_REGION,
 * AWS_ACCESS_KEY_ID, AWS_PROFILE, ...): nothing of them is seen here.
 */
export async function loadS3(): Promise<S3> {
  // The version is pinned: what later ones will need is nothing to tell a user.
  // biome-ignore lint/style/noProcessEnv: that is how the client is told
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true";
  const sdk = await import("@aws-sdk/client-s3");
  const client = new sdk.S3Client({
    // Bodies are signed with their SHA-256, and verified by the manifest's: other servers than AWS may know no more sums.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    requestHandler: { connectionTimeout: connectMs, socketTimeout: silenceMs },
  });
  // Servers other than AWS have one name for all buckets.
  const endpointOf = client.config.endpointProvider;
  client.config.endpointProvider = (parameters, context) =>
    endpointOf({ ...parameters, ForcePathStyle: parameters.Endpoint !== undefined }, context);
  return { sdk, client };
}
