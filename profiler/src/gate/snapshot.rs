//! The facts on record: a text file that is reviewed like code.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A `*.gate.toml` file.
///
/// Facts come from the graph, the plan and one run of it; none depends on the machine, its load or its processor, but for the names
/// of kernels, which are kept per SIMD level. There is no time in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The model as the command line names it: a known name, `hf://…`, or a path (relative to the directory of the file).
    pub model: String,
    /// Why it was recorded, in the words of who did.
    pub reason: Option<String>,
    /// What the facts were gathered under, and measurements are made under.
    pub conditions: Conditions,
    /// From where on a change fails.
    pub limits: Limits,
    /// Instructions of a token, if they were counted.
    pub instructions: Option<Instructions>,
    /// What must be the same to the last byte.
    pub facts: Facts,
}

/// What [`crate::gate::compare()`] compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The model's graph.
    pub graph: GraphFacts,
    /// The plan made from it.
    pub plan: PlanFacts,
    /// Steps of the plan, equal ones of all layers together, in the order in which they run.
    pub bricks: Vec<BrickFacts>,
    /// Kernel of every group of steps, by SIMD level.
    pub kernels: BTreeMap<String, BTreeMap<String, String>>,
}

/// The file, read: serde cannot refuse unknown keys of a flattened part, so the facts stand side by side here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(rename = "schema")]
    _schema: u32,
    model: String,
    reason: Option<String>,
    conditions: Conditions,
    limits: Limits,
    instructions: Option<Instructions>,
    graph: GraphFacts,
    plan: PlanFacts,
    #[serde(default, rename = "brick")]
    bricks: Vec<BrickFacts>,
    #[serde(default)]
    kernels: BTreeMap<String, BTreeMap<String, String>>,
}

impl From<Form> for Snapshot {
    fn from(f: Form) -> Self {
        let facts = Facts { graph: f.graph, plan: f.plan, bricks: f.bricks, kernels: f.kernels };
        let Form { model, reason, conditions, limits, instructions, .. } = f;
        Self { model, reason, conditions, limits, instructions, facts }
    }
}

/// What facts are gathered and times are taken under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Positions of the KV cache.
    pub context: usize,
    /// Rows of the largest call.
    pub batch: usize,
    /// Threads. A number of its own rather than the machine's: working memory depends on it.
    pub threads: usize,
    /// Element type of the KV cache.
    pub kv_type: String,
    /// Context of the decoded token that costs are for.
    pub decode_context: u64,
    /// Rows of the prompt that costs are for.
    pub prompt_rows: u64,
}

/// From where on a change fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest ratio of a brick's time to its time in the base program.
    pub ratio: f64,
    /// Largest difference of the instructions of a token, in per cent.
    pub instructions_percent: f64,
    /// Smallest fraction of the roofline of a whole token, on machines declared quiet.
    pub roofline: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ratio: 1.05, instructions_percent: 3.0, roofline: 0.25 }
    }
}

/// Instructions of a decoded token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// Instructions, libraries included.
    pub per_token: u64,
    /// SIMD level that ran: valgrind hides AVX-512 and AMX.
    pub level: String,
    /// Compiler and target. Other ones give other counts for good reasons.
    pub build: String,
    /// Positions in the cache before the token.
    pub depth: usize,
}

/// The graph of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphFacts {
    /// Architecture, as the model file names it.
    pub architecture: String,
    /// Hash of the fused graph, as `brick graph` and profiles have it: operations with their parameters, wiring, shapes and types of all
    /// weights.
    pub hash: String,
    /// Bricks as built, one per operation.
    pub built_bricks: usize,
    /// Wires between them.
    pub built_wires: usize,
    /// Bricks after each pass that rewrites the graph, in order.
    pub bricks_after: Vec<(String, usize)>,
    /// Bricks that run.
    pub bricks: usize,
    /// Wires between them.
    pub wires: usize,
}

/// The plan of the CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFacts {
    /// Steps in the list.
    pub steps: usize,
    /// Barriers that one decoded token passed, counted while it ran: what launches are on a GPU.
    pub barriers_per_token: u64,
    /// Barriers of the prompt.
    pub barriers_per_prompt: u64,
    /// Heap allocations, reallocations and frees of a decoded token, on all threads. Absent where the program does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations_per_token: Option<u64>,
    /// Working memory.
    pub arena_bytes: usize,
    /// KV cache of one position.
    pub kv_bytes_per_token: usize,
    /// Weights in the layout of the kernels.
    pub packed_weight_bytes: usize,
}

/// Steps that do the same in all their layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrickFacts {
    /// Name with `*` for the layer. Groups of one name differ in `layers`.
    pub name: String,
    /// Category.
    pub kind: String,
    /// Steps.
    pub count: usize,
    /// Layers, e.g. `0-3, 7`; empty for steps of no layer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub layers: String,
    /// Bricks as built that each of them stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fused: Vec<String>,
    /// Types and shapes of the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<String>,
    /// Cost of each in a call for one token.
    pub decode: Moved,
    /// Cost of each in a call for the prompt.
    pub prompt: Moved,
}

impl BrickFacts {
    /// Name, with the layers if they are not all: unique in a file.
    pub fn label(&self, others: &[BrickFacts]) -> String {
        if others.iter().filter(|b| b.name == self.name).count() > 1 {
            format!("{} (layers {})", self.name, self.layers)
        } else {
            self.name.clone()
        }
    }
}

/// Bytes and operations of a call. Derived from shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of activations and KV cache read.
    pub read: u64,
    /// Bytes of activations and KV cache written.
    pub written: u64,
    /// Integer operations.
    pub int: u64,
    /// Floating-point operations.
    pub float: u64,
}

impl From<bricks::Cost> for Moved {
    fn from(c: bricks::Cost) -> Self {
        Self { weights: c.weight_bytes, read: c.read_bytes, written: c.write_bytes, int: c.int_ops, float: c.flops }
    }
}

/// A file is not a snapshot that this program understands.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file itself.
    #[error("{file}: {source}")]
    Io {
        /// Its name.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not TOML, or keys and values of something else.
    #[error(
        "{file}: expected a gate file (`brick gate record MODEL -o FILE` writes one), found something else:\n{source}"
    )]
    Form {
        /// Its name.
        file: String,
        /// What does not fit, and where.
        source: Box<toml::de::Error>,
    },
    /// Another version of the form.
    #[error("{file}: expected schema {}, found {found}{note}", Snapshot::SCHEMA)]
    Schema {
        /// Its name.
        file: String,
        /// Its version.
        found: i64,
        /// What that means, if it is known.
        note: &'static str,
    },
    /// A value that cannot be meant.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Value {
        /// Its name.
        file: String,
        /// Where in it.
        key: &'static str,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

/// The first lines of every file.
const HEADER: &str = "\
# What `brick gate check` compares with; written by `brick gate record`. Review a change of this file like code.
# No figure here is a time. Bytes and operations follow from shapes, everything else was counted.
# https://github.com/brick-rs/brick/blob/main/docs/gates.md
";

impl Snapshot {
    /// Version of the form.
    pub const SCHEMA: u32 = 1;

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or [`parse`](Self::parse) refuses it.
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| SnapshotError::Io { file: file.clone(), source })?;
        Self::parse(&file, &text)
    }

    /// Reads the content of a file; `file` is its name in errors.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong and where.
    pub fn parse(file: &str, text: &str) -> Result<Self, SnapshotError> {
        /// Only what tells whether the rest can be understood.
        #[derive(Deserialize)]
        struct Version {
            schema: i64,
        }
        let form = |source: toml::de::Error| SnapshotError::Form { file: file.to_owned(), source: Box::new(source) };
        let Version { schema } = toml::from_str(text).map_err(form)?;
        if schema != i64::from(Self::SCHEMA) {
            let newer = schema > i64::from(Self::SCHEMA);
            let note = if newer { ": a newer brick has written it" } else { "" };
            return Err(SnapshotError::Schema { file: file.to_owned(), found: schema, note });
        }
        let snapshot = Self::from(toml::from_str::<Form>(text).map_err(form)?);
        snapshot.check(file)?;
        Ok(snapshot)
    }

    fn check(&self, file: &str) -> Result<(), SnapshotError> {
        let bad = |key, expected, found: String| SnapshotError::Value { file: file.to_owned(), key, expected, found };
        let (c, l) = (&self.conditions, &self.limits);
        if !(l.ratio > 1.0 && l.ratio.is_finite()) {
            return Err(bad("limits.ratio", "a number above 1", l.ratio.to_string()));
        }
        if !(l.instructions_percent > 0.0 && l.instructions_percent.is_finite()) {
            return Err(bad("limits.instructions_percent", "a positive number", l.instructions_percent.to_string()));
        }
        if !(0.0..1.0).contains(&l.roofline) {
            return Err(bad("limits.roofline", "a fraction of 1", l.roofline.to_string()));
        }
        let rows = c.prompt_rows as usize;
        if !(1..=1024).contains(&c.threads) {
            return Err(bad("conditions.threads", "1 to 1024", c.threads.to_string()));
        }
        if !(2..=1 << 24).contains(&c.context) {
            return Err(bad("conditions.context", "2 to 16777216 positions", c.context.to_string()));
        }
        if c.batch == 0 || c.batch > c.context {
            return Err(bad("conditions.batch", "1 to the context", c.batch.to_string()));
        }
        if rows == 0 || rows > c.context {
            return Err(bad("conditions.prompt_rows", "1 to the context", rows.to_string()));
        }
        if c.decode_context == 0 || c.decode_context > c.context as u64 {
            return Err(bad("conditions.decode_context", "1 to the context", c.decode_context.to_string()));
        }
        if self.facts.bricks.is_empty() {
            return Err(bad("brick", "at least one", "none".to_owned()));
        }
        if self.instructions.as_ref().is_some_and(|i| i.per_token == 0) {
            return Err(bad("instructions.per_token", "a positive number", "0".to_owned()));
        }
        Ok(())
    }

    /// The file: few lines per group of steps, so that a difference of two versions can be read.
    pub fn to_toml(&self) -> String {
        use std::fmt::Write as _;
        let value = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let list = |items: &[String]| items.iter().map(|t| value(t)).collect::<Vec<_>>().join(", ");
        let mut out = HEADER.to_owned();
        // Writing to a string does not fail.
        let _ = writeln!(out, "schema = {}\nmodel = {}", Self::SCHEMA, value(&self.model));
        if let Some(reason) = &self.reason {
            let _ = writeln!(out, "reason = {}", value(reason));
        }
        let section = |out: &mut String, name: &str, text: Result<String, toml::ser::Error>| {
            let text = text.expect("invariant: tables of numbers and strings are TOML");
            let _ = write!(out, "\n[{name}]\n{text}");
        };
        section(&mut out, "conditions", toml::to_string(&self.conditions));
        section(&mut out, "limits", toml::to_string(&self.limits));
        if let Some(instructions) = &self.instructions {
            section(&mut out, "instructions", toml::to_string(instructions));
        }
        section(&mut out, "graph", toml::to_string(&self.facts.graph));
        section(&mut out, "plan", toml::to_string(&self.facts.plan));
        for b in &self.facts.bricks {
            let _ = writeln!(out, "\n[[brick]]\nname = {}\nkind = {}", value(&b.name), value(&b.kind));
            let _ = writeln!(out, "count = {}", b.count);
            if !b.layers.is_empty() {
                let _ = writeln!(out, "layers = {}", value(&b.layers));
            }
            for (key, items) in [("fused", &b.fused), ("weights", &b.weights)] {
                if !items.is_empty() {
                    let _ = writeln!(out, "{key} = [{}]", list(items));
                }
            }
            for (key, Moved { weights, read, written, int, float }) in [("decode", b.decode), ("prompt", b.prompt)] {
                let _ = writeln!(
                    out,
                    "{key} = {{ weights = {weights}, read = {read}, written = {written}, int = {int}, float = {float} }}"
                );
            }
        }
        for (level, kernels) in &self.facts.kernels {
            let _ = writeln!(out, "\n[kernels.{}]", value(level));
            for (name, kernel) in kernels {
                let _ = writeln!(out, "{} = {}", value(name), value(kernel));
            }
        }
        out
    }
}

/// The name of a step with `*` where its layer's number stands.
pub fn fold_name(name: &str, layer: Option<u32>) -> String {
    let Some(layer) = layer.map(|l| l.to_string()) else { return name.to_owned() };
    let parts: Vec<&str> = name.split('.').map(|part| if part == layer { "*" } else { part }).collect();
    parts.join(".")
}

/// Layers in ascending order as ranges: `0-3, 7`.
pub fn layer_ranges(layers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &layer in layers {
        match runs.last_mut() {
            Some((_, last)) if layer == *last + 1 => *last = layer,
            _ => runs.push((layer, layer)),
        }
    }
    let text = |(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}
