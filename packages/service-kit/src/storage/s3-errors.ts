/** What S3 answers, as errors of ours: without headers and keys, which the client's own errors may hold. */
import { PaddockError } from "@paddock/contract";

/** As far as they are looked at. */
interface Answer {
  readonly name?: string;
  readonly code?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

const remedies: readonly (readonly [what: RegExp, remedy: string])[] = [
  [/NoSuchBucket/, "make the bucket, or correct checkpoint.storage"],
  [
    /CredentialsProvider|credential/i,
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for coordinator and workers",
  ],
  [
    /Region is missing|PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation/,
    "set AWS_REGION to the bucket's (us-east-1 does for most servers other than AWS)",
  ],
  [
    /HTTP 401|HTTP 403/,
    "check the AWS credentials, and that they may list the bucket and read, write and delete there",
  ],
  [
    /ECONN|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN|EPIPE|Timeout|socket hang up|aborted/,
    "check the network and AWS_ENDPOINT_URL_S3",
  ],
];

/** `disk-unavailable`; errors of ours pass through. @param doing completes "expected to ..." */
export function s3Error(doing: string, thrown: unknown): PaddockError {
  if (thrown instanceof PaddockError) return thrown;
  const { name = "Error", code, message, $metadata } = thrown as Answer;
  const status = $metadata?.httpStatusCode;
  const title = name === "Error" ? (code ?? name) : name;
  const received = `${title}: ${message || "no reason"}${status === undefined ? "" : ` (HTTP ${status})`}`;
  const [, remedy = "check the storage"] = remedies.find(([what]) => what.test(received)) ?? [];
  // No cause: the client's errors hold what was signed, a session's token among it, and causes are logged.
  return new PaddockError(
    "disk-unavailable",
    `expected to ${doing}, received ${received}; ${remedy}`,
  );
}

/** Whether the answer was one of these HTTP statuses. */
export function isStatus(thrown: unknown, ...statuses: readonly number[]): boolean {
  return statuses.includes((thrown as Answer)?.$metadata?.httpStatusCode ?? 0);
}

/** `checkpoint-corrupt`, as for files. */
export function corruptObject(path: string, expected: string, received: string): PaddockError {
  return new PaddockError(
    "checkpoint-corrupt",
    `${path}: expected ${expected}, received ${received}`,
  );
}
