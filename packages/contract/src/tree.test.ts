import fc from "fast-check";
import { expect, test } from "vitest";
import { subtreeRoots, sumTree, type TreeNode } from "./tree.js";

const f32 = (x: number): number => Math.fround(x);
const addF32 = (a: number, b: number): number => f32(a + b);
const key = (n: TreeNode): string => `${n.start}-${n.end}`;

test("roots of a range tile it in order", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.nat(), fc.nat(), (leaves, a, b) => {
      const start = Math.min(a % (leaves + 1), b % (leaves + 1));
      const end = Math.max(a % (leaves + 1), b % (leaves + 1));
      let at = start;
      for (const root of subtreeRoots(start, end, leaves)) {
        expect(root.start).toBe(at);
        at = root.end;
      }
      expect(at).toBe(end);
    }),
  );
});

test("a sum of partial sums is bit-identical to the undivided sum, for every division among workers", () => {
  fc.assert(
    fc.property(
      fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 40 }),
      fc.array(fc.nat(), { maxLength: 5 }),
      (leaves, rawCuts) => {
        const n = leaves.length;
        const leaf = (node: TreeNode): number | undefined =>
          node.end - node.start === 1 ? leaves[node.start] : undefined;
        const whole = sumTree({ start: 0, end: n }, leaf, addF32);
        const cuts = [0, ...rawCuts.map((c) => c % (n + 1)).sort((x, y) => x - y), n];
        const received = new Map<string, number>();
        for (let i = 1; i < cuts.length; i++) {
          for (const root of subtreeRoots(cuts[i - 1] as number, cuts[i] as number, n)) {
            received.set(key(root), sumTree(root, leaf, addF32));
          }
        }
        const divided = sumTree({ start: 0, end: n }, (node) => received.get(key(node)), addF32);
        expect(Object.is(divided, whole)).toBe(true);
      },
    ),
  );
});

test("the order of the tree is fixed: ((0 1)(2 3))(4 5)", () => {
  const text = sumTree<string>(
    { start: 0, end: 6 },
    (n) => (n.end - n.start === 1 ? String(n.start) : undefined),
    (a, b) => `(${a} ${b})`,
  );
  expect(text).toBe("(((0 1) (2 3)) (4 5))");
});
