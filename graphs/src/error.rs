//! What can be wrong with a graph.

use bricks::OpError;

/// A composition of bricks that cannot run. Every message names the bricks it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// What one brick produces is not what the other takes.
    #[error(
        "brick `{consumer}` input {consumer_port}: expected {expected}, \
         but brick `{producer}` output {producer_port} gives {found}"
    )]
    Wire {
        /// Brick that gives the value.
        producer: String,
        /// Its output port.
        producer_port: usize,
        /// Brick that takes the value.
        consumer: String,
        /// Its input port.
        consumer_port: usize,
        /// Type that the consumer takes.
        expected: String,
        /// Type that the producer gives.
        found: String,
    },
    /// A weight has a shape that its brick cannot use.
    #[error("brick `{brick}` weight `{weight}` ({role}): expected {expected}, found {found}")]
    Weight {
        /// Brick that reads the weight.
        brick: String,
        /// Name of the weight.
        weight: String,
        /// What the weight is for.
        role: &'static str,
        /// Expected shape.
        expected: String,
        /// Found shape.
        found: String,
    },
    /// The number of inputs or weights, or the operation's own parameters, are wrong.
    #[error("brick `{brick}` ({op}): {source}")]
    Op {
        /// The brick.
        brick: String,
        /// Its operation.
        op: &'static str,
        /// What the operation says.
        source: OpError,
    },
    /// An input port that nothing is wired to.
    #[error("brick `{brick}` input {port}: expected a value, found nothing wired to it")]
    Unconnected {
        /// The brick.
        brick: String,
        /// Its input port.
        port: usize,
    },
    /// A wire from an output that the producer does not have.
    #[error(
        "brick `{consumer}` input {consumer_port}: expected one of the {outputs} outputs of brick `{producer}`, \
         found output {producer_port}"
    )]
    NoSuchOutput {
        /// Brick that should give the value.
        producer: String,
        /// The output port asked for.
        producer_port: usize,
        /// Outputs that it has.
        outputs: usize,
        /// Brick that asks (`graph output` for the graph itself).
        consumer: String,
        /// Its input port.
        consumer_port: usize,
    },
    /// A handle that another builder gave out.
    #[error("brick `{brick}` input {port}: the handle belongs to another builder")]
    ForeignHandle {
        /// Brick that was to be wired (`graph output` for the graph itself).
        brick: String,
        /// Its input port.
        port: usize,
    },
    /// Bricks that wait for each other.
    #[error("bricks form a cycle: {}", bricks.join(" -> "))]
    Cycle {
        /// Names along the cycle; the last one feeds the first.
        bricks: Vec<String>,
    },
    /// An output that nobody reads: work thrown away, or a wire forgotten.
    #[error("brick `{brick}` output {port} ({ty}): expected a reader, found none, and it is not the graph's output")]
    Dangling {
        /// The brick.
        brick: String,
        /// Its output port.
        port: usize,
        /// Type of the output.
        ty: String,
    },
    /// Two bricks with one name.
    #[error("two bricks are named `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// One weight registered with two shapes.
    #[error("weight `{name}`: registered as {first}, then as {second}")]
    WeightConflict {
        /// Name of the weight.
        name: String,
        /// Shape of the first registration.
        first: String,
        /// Shape of the second.
        second: String,
    },
    /// A weight id that this graph did not give out.
    #[error("brick `{brick}`: weight id {id} does not exist, the graph has {count} weights")]
    UnknownWeight {
        /// The brick.
        brick: String,
        /// The id.
        id: u32,
        /// Weights of the graph.
        count: usize,
    },
    /// A weight that no brick reads.
    #[error("weight `{name}` is read by no brick")]
    UnusedWeight {
        /// Name of the weight.
        name: String,
    },
    /// A forward call has one batch of tokens, hence one input brick.
    #[error("a graph has one input brick, found `{first}` and `{second}`")]
    SeveralInputs {
        /// The first input brick.
        first: String,
        /// The second.
        second: String,
    },
    /// A brick writes a KV cache without saying which.
    #[error("brick `{brick}` writes a KV cache: expected a layer, found none")]
    KvWithoutLayer {
        /// The brick.
        brick: String,
    },
    /// Two bricks write one KV cache.
    #[error("bricks `{first}` and `{second}` both write the KV cache of layer {layer}")]
    KvWrittenTwice {
        /// The first writer.
        first: String,
        /// The second.
        second: String,
        /// The layer.
        layer: u32,
    },
    /// The graph's output is not activations.
    #[error("graph output: expected activations (f32), but brick `{brick}` output {port} gives {found}")]
    NotAnOutput {
        /// The brick.
        brick: String,
        /// Its output port.
        port: usize,
        /// Type of the output.
        found: String,
    },
    /// More bricks, values or weights than an id can count.
    #[error("a graph holds at most 2^32 - 1 bricks, values and weights; found {found} {what}")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        found: usize,
    },
    /// A value does not fit into an arena: its size overflows, or depends on something other than the batch.
    #[error("brick `{brick}` output {port} ({ty}): cannot be placed in the arena for {rows}")]
    Unplaceable {
        /// The brick.
        brick: String,
        /// Its output port.
        port: usize,
        /// Type of the value.
        ty: String,
        /// The maximum of rows asked for.
        rows: String,
    },
    /// A pass of that name does not exist.
    #[error("no pass is named `{name}`; there are {known}")]
    UnknownPass {
        /// The name asked for.
        name: String,
        /// Every name.
        known: String,
    },
    /// A pass changed what the graph computes. A defect of the pass, found before anything runs.
    #[error("pass `{pass}` changed the meaning of the graph: {what} is another expression than before")]
    MeaningChanged {
        /// The pass.
        pass: &'static str,
        /// `the output` or `the KV cache of layer N`.
        what: String,
    },
}
