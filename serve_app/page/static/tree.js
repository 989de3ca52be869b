// The tree of a chat's turns. Regenerated and edited turns are siblings: they have one parent.

export class Tree {
  /** `turns` in the order in which they were stored. */
  constructor(turns, activeId) {
    this.turns = turns;
    this.activeId = activeId;
    this.byId = new Map(turns.map((turn) => [turn.id, turn]));
  }

  /** From the first turn to `id`, which may be null: then there are none. */
  pathTo(id) {
    const path = [];
    for (let turn = this.byId.get(id); turn; turn = this.byId.get(turn.parent)) path.unshift(turn);
    return path;
  }

  children(parent) {
    return this.turns.filter((turn) => turn.parent === parent);
  }

  /** Which of its siblings `turn` is, from 1, and how many there are. */
  place(turn) {
    const siblings = this.children(turn.parent);
    return { n: siblings.indexOf(turn) + 1, of: siblings.length };
  }

  /** The newest turn behind the sibling that is `by` steps away. */
  leafBeside(turn, by) {
    const siblings = this.children(turn.parent);
    let leaf = siblings[siblings.indexOf(turn) + by];
    for (let next = leaf; next; next = this.children(next.id).at(-1)) leaf = next;
    return leaf?.id;
  }
}
