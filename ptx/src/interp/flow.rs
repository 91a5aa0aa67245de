//! Control flow: where the lanes of a divergent branch meet again.
//!
//! They meet at the branch's immediate post-dominator: the first instruction every path to the end of the kernel passes.
//! A guarded `ret` is no way to the end here: its lanes vanish, and the others still meet where they would without it.

use super::op::{Instr, NEVER, Op};

/// A control-flow graph over instructions grouped into blocks without jumps inside.
pub(super) struct Graph {
    /// First instruction of every block, ascending.
    pub(super) starts: Vec<u32>,
    /// Successors of every block.
    pub(super) next: Vec<Vec<usize>>,
}

impl Graph {
    pub(super) fn new(code: &[Instr]) -> Self {
        let mut leader = vec![false; code.len()];
        if let Some(first) = leader.first_mut() {
            *first = true;
        }
        for (at, instr) in code.iter().enumerate() {
            let ends = match instr.op {
                Op::Bra { target, .. } => {
                    leader[target as usize] = true;
                    true
                }
                Op::Exit => true,
                _ => false,
            };
            if ends && at + 1 < code.len() {
                leader[at + 1] = true;
            }
        }
        let starts: Vec<u32> = (0..code.len() as u32).filter(|&at| leader[at as usize]).collect();
        let block_of = |at: u32| starts.partition_point(|&start| start <= at) - 1;
        let next = (0..starts.len())
            .map(|b| {
                let end = starts.get(b + 1).map_or(code.len() as u32, |&next| next);
                let last = &code[end as usize - 1];
                let falls = (end as usize) < code.len();
                let mut next = Vec::with_capacity(2);
                match last.op {
                    Op::Bra { target, .. } => {
                        next.push(block_of(target));
                        if last.guard.is_some() && falls {
                            next.push(b + 1);
                        }
                    }
                    Op::Exit if last.guard.is_none() => {}
                    _ if falls => next.push(b + 1),
                    _ => {}
                }
                next
            })
            .collect();
        Self { starts, next }
    }

    /// The immediate post-dominator of every block; `None` for the end of the kernel or for loops that never end.
    ///
    /// The algorithm of Cooper, Harvey and Kennedy on the reversed graph, with one extra node for the end.
    pub(super) fn post_dominators(&self) -> Vec<Option<usize>> {
        let end = self.next.len();
        let mut previous = vec![Vec::new(); end + 1];
        for (block, next) in self.next.iter().enumerate() {
            if next.is_empty() {
                previous[end].push(block);
            }
            for &n in next {
                previous[n].push(block);
            }
        }
        // Reverse post-order of the reversed graph, without recursion: texts may be deep.
        let mut order = Vec::with_capacity(end + 1);
        let mut seen = vec![false; end + 1];
        let mut stack = vec![(end, 0)];
        seen[end] = true;
        while let Some((node, visited)) = stack.last_mut() {
            if let Some(&child) = previous[*node].get(*visited) {
                *visited += 1;
                if !seen[child] {
                    seen[child] = true;
                    stack.push((child, 0));
                }
            } else {
                order.push(*node);
                stack.pop();
            }
        }
        let mut rank = vec![0; end + 1];
        for (i, &node) in order.iter().enumerate() {
            rank[node] = i;
        }
        let mut dominator: Vec<Option<usize>> = vec![None; end + 1];
        dominator[end] = Some(end);
        let mut changed = true;
        while changed {
            changed = false;
            for &node in order.iter().rev().skip(1) {
                let ends = [end];
                let next: &[usize] = if self.next[node].is_empty() { &ends } else { &self.next[node] };
                let mut found: Option<usize> = None;
                for &n in next.iter().filter(|&&n| dominator[n].is_some()) {
                    found = Some(match found {
                        None => n,
                        Some(other) => intersect(n, other, &dominator, &rank),
                    });
                }
                if dominator[node] != found {
                    dominator[node] = found;
                    changed = true;
                }
            }
        }
        dominator[..end].iter().map(|d| d.filter(|&d| d != end)).collect()
    }
}

/// The nearest common post-dominator of two nodes that have one.
fn intersect(mut a: usize, mut b: usize, dominator: &[Option<usize>], rank: &[usize]) -> usize {
    while a != b {
        while rank[a] < rank[b] {
            a = dominator[a].unwrap_or(b);
        }
        while rank[b] < rank[a] {
            b = dominator[b].unwrap_or(a);
        }
    }
    a
}

/// Gives every conditional branch the place where its lanes meet again.
pub(super) fn set_reconvergence(code: &mut [Instr]) {
    let graph = Graph::new(code);
    let dominators = graph.post_dominators();
    for (block, dominator) in dominators.iter().enumerate() {
        let end = graph.starts.get(block + 1).map_or(code.len(), |&next| next as usize);
        let last = &mut code[end - 1];
        if matches!(last.op, Op::Bra { .. }) {
            last.reconverge = dominator.map_or(NEVER, |d| graph.starts[d]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::{P, Pin};
    use super::*;

    fn code(ops: &[(bool, Op)]) -> Vec<Instr> {
        let guard = Some(Pin { p: P(0), negated: false });
        ops.iter()
            .map(|&(guarded, op)| Instr { guard: guard.filter(|_| guarded), op, line: 0, reconverge: NEVER })
            .collect()
    }

    fn bra(target: u32) -> Op {
        Op::Bra { target, uniform: false }
    }

    fn reconvergence(ops: &[(bool, Op)], at: usize) -> u32 {
        let mut code = code(ops);
        set_reconvergence(&mut code);
        code[at].reconverge
    }

    #[test]
    fn if_else_meets_after_both_sides() {
        let ops = [(true, bra(3)), (false, Op::Nop), (false, bra(4)), (false, Op::Nop), (false, Op::Exit)];
        assert_eq!(reconvergence(&ops, 0), 4);
    }

    #[test]
    fn a_loop_meets_at_its_exit() {
        let ops = [(false, Op::Nop), (true, bra(0)), (false, Op::Nop), (false, Op::Exit)];
        assert_eq!(reconvergence(&ops, 1), 2);
    }

    #[test]
    fn a_guarded_return_does_not_move_the_meeting_place() {
        let ops = [(true, bra(2)), (true, Op::Exit), (false, Op::Nop), (false, Op::Exit)];
        assert_eq!(reconvergence(&ops, 0), 2);
    }

    #[test]
    fn sides_that_end_apart_never_meet() {
        let ops = [(true, bra(3)), (false, Op::Nop), (false, Op::Exit), (false, Op::Exit)];
        assert_eq!(reconvergence(&ops, 0), NEVER);
    }

    #[test]
    fn a_loop_without_an_exit_is_not_a_way_to_the_end() {
        let ops = [(true, bra(2)), (false, bra(1)), (false, Op::Exit)];
        assert_eq!(reconvergence(&ops, 0), 2);
        assert_eq!(reconvergence(&ops, 1), NEVER);
    }
}
