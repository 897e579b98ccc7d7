/** The part of jasmine that is used here; it brings no types of its own. */
declare module "jasmine" {
  export interface SpecResult {
    readonly fullName: string;
    readonly status: "passed" | "failed" | "pending" | "excluded";
    readonly failedExpectations: readonly { readonly message: string }[];
  }

  export interface SuiteResult {
    readonly failedExpectations: readonly { readonly message: string }[];
  }

  export interface Reporter {
    specDone?(result: SpecResult): void;
    suiteDone?(result: SuiteResult): void;
    jasmineDone?(info: SuiteResult): void;
  }

  export interface Env {
    clearReporters(): void;
    addReporter(reporter: Reporter): void;
    configure(options: {
      readonly random?: boolean;
      readonly forbidDuplicateNames?: boolean;
      readonly specFilter?: (spec: { getFullName(): string }) => boolean;
    }): void;
    execute(): Promise<unknown>;
  }

  // biome-ignore lint/style/noDefaultExport: it is jasmine's
  export default class Jasmine {
    readonly env: Env;
    constructor(options?: object);
  }
}
