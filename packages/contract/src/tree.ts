/**
 * The fixed binary tree in whose order everything is summed.
 *
 * Floating-point addition is not associative, so a sum is only independent of who computes it if its order is fixed.
 * Leaves are logical ranks (gradients, Sinkhorn sums) or chunks of a flat vector (gradient norms). A worker that owns the
 * leaves [start, end) sends the values of its `subtreeRoots`; whoever adds them up in `sumTree` obtains bit for bit the
 * value of the undivided sum, for any division. Node values may be rounded (fp16 exchange): rounding belongs to the node.
 */
import { invariant } from "./errors.js";

/** A node covers the leaves [start, end). */
export interface TreeNode {
  readonly start: number;
  readonly end: number;
}

/** Where the node [start, end) splits: after the largest power of two below its size. */
function split({ start, end }: TreeNode): number {
  const size = end - start;
  return start + 2 ** Math.floor(Math.log2(size - 1));
}

/** The largest nodes of the tree over [0, leaves) that lie inside [start, end), left to right. At most 2 log2(leaves). */
export function subtreeRoots(start: number, end: number, leaves: number): TreeNode[] {
  invariant(
    0 <= start && start <= end && end <= leaves,
    `range [${start}, ${end}) of ${leaves} leaves`,
  );
  const roots: TreeNode[] = [];
  const visit = (node: TreeNode): void => {
    if (node.end <= start || end <= node.start || start === end) return;
    if (start <= node.start && node.end <= end) {
      roots.push(node);
      return;
    }
    const middle = split(node);
    visit({ start: node.start, end: middle });
    visit({ start: middle, end: node.end });
  };
  if (leaves > 0) visit({ start: 0, end: leaves });
  return roots;
}

/**
 * The value of `root`, summed in tree order from the values of nodes that together cover it.
 * @param knownValue the value of a node if it is known (a leaf computed here, or a root received), else undefined
 * @param add must return left + right, rounded as the tree's dtype demands; may reuse `left`'s memory
 */
export function sumTree<T>(
  root: TreeNode,
  knownValue: (node: TreeNode) => T | undefined,
  add: (left: T, right: T) => T,
): T {
  const known = knownValue(root);
  if (known !== undefined) return known;
  invariant(root.end - root.start > 1, `no value for leaf ${root.start}`);
  const middle = split(root);
  const left = sumTree({ start: root.start, end: middle }, knownValue, add);
  const right = sumTree({ start: middle, end: root.end }, knownValue, add);
  return add(left, right);
}
