/** A run spec as YAML or JSON text: its value, and the line of each field for error messages. */
import { PaddockError } from "@paddock/contract";
import { type Document, isNode, LineCounter, parseDocument } from "yaml";

export interface SpecText {
  readonly value: unknown;
  /** 1-based line of the field at `path`, or undefined when the text does not hold it. */
  lineOf(path: readonly string[]): number | undefined;
}

/** A spec of a hundred stages is far below. */
const maxSpecCharacters = 2 ** 20;

/** Parses `text`. JSON is YAML too. Errors: `invalid-spec` with file, line and column. */
export function parseSpecText(text: string, file: string): SpecText {
  if (text.length > maxSpecCharacters) {
    throw new PaddockError(
      "invalid-spec",
      `${file}: expected at most ${maxSpecCharacters} characters, received ${text.length}`,
    );
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new PaddockError(
      "invalid-spec",
      `${file}:${line}:${col}: expected YAML, received something else: ${error.message}`,
      { cause: error },
    );
  }
  return {
    value: plainValue(document, file),
    lineOf(path) {
      const node = document.getIn(path, true);
      const offset = isNode(node) ? node.range?.[0] : undefined;
      return offset === undefined ? undefined : lines.linePos(offset).line;
    },
  };
}

/** Aliases of aliases can unfold to more than any memory holds: the library counts them. */
function plainValue(document: Document, file: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    throw unfolding(file, error);
  }
}

function unfolding(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-spec",
    `${file}: expected YAML that can be read, received: ${(cause as Error).message}`,
    { cause },
  );
}
