//! The tokens of one forward call.

use bricks::Extent;

use crate::kv::SequenceId;

/// One row of a batch: a token at a position of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Token id.
    pub token: u32,
    /// Position in the sequence, counted from 0; must be the sequence's next one.
    pub position: usize,
    /// The sequence it belongs to.
    pub sequence: SequenceId,
    /// Whether the logits after this token are wanted.
    pub wanted: bool,
}

/// The rows of one [`crate::Engine::forward`] call. Reused between calls: clearing keeps its memory.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    rows: Vec<Row>,
}

impl Batch {
    /// An empty batch with room for `rows` rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows) }
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds consecutive tokens of a sequence that start at `position`; logits are wanted after the last one only.
    pub fn push_tokens(&mut self, sequence: SequenceId, position: usize, tokens: &[u32]) {
        for (i, &token) in tokens.iter().enumerate() {
            self.push(Row { token, position: position + i, sequence, wanted: i + 1 == tokens.len() });
        }
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows whose logits are wanted.
    pub fn wanted(&self) -> usize {
        self.rows.iter().filter(|r| r.wanted).count()
    }

    /// The sizes that static cost depends on.
    pub fn extent(&self) -> Extent {
        let mut e = Extent { tokens: self.rows.len() as u64, wanted: self.wanted() as u64, context: 0, pairs: 0 };
        for (i, r) in self.rows.iter().enumerate() {
            e.pairs += r.position as u64 + 1;
            // The last row of a sequence in this batch tells how far its context reaches.
            if self.rows[i + 1..].first().is_none_or(|next| next.sequence != r.sequence) {
                e.context += r.position as u64 + 1;
            }
        }
        e
    }
}
