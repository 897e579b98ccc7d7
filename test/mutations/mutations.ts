/** Places in which a port of the recipe goes wrong easily, as changes of the source. */
export interface Mutation {
  readonly name: string;
  /** Below the repository. */
  readonly file: string;
  /** Text that occurs once. */
  readonly find: string;
  readonly replace: string;
}

export const mutations: readonly Mutation[] = [];
