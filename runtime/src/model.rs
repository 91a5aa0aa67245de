//! A model file made ready to run: metadata, graph, weights, tokenizer, chat template.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use brick_graphs::{Graph, WeightId, passes};
use brick_models::arch::{ArchError, ArchSpec, WeightNames, WeightRole};
use brick_models::build::{BuildError, build_graph};
use brick_models::chat::{ChatError, ChatTemplate};
use brick_models::format::gguf::{Gguf, GgufError, TensorInfo};
use brick_models::tokenizer::{Tokenizer, VocabError};

use crate::engine::{Engine, EngineError, EngineOptions};
use crate::weights::{PackedWeights, Weights};

/// A file is not a model that can run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The architecture.
    #[error("{path}: {source}")]
    Arch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ArchError,
    },
    /// The graph.
    #[error("{path}: {source}")]
    Build {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<BuildError>,
    },
    /// A fusion pass.
    #[error("{path}: {source}")]
    Graph {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<brick_graphs::GraphError>,
    },
    /// A tensor.
    #[error("{path}: {source}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: brick_models::format::gguf::FormatError,
    },
    /// The tokenizer.
    #[error("{path}: {source}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VocabError,
    },
    /// Tokenizer and embedding table do not belong together.
    #[error("{path}: the tokenizer has {tokens} tokens, the embedding table {rows} rows; expected the same number")]
    VocabSize {
        /// The file.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding table.
        rows: usize,
    },
    /// The chat template.
    #[error("{path}: {source}")]
    Chat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ChatError,
    },
}

/// The weights of a graph in a memory-mapped file, or in one that is [generated](Gguf::generated).
#[derive(Debug)]
pub struct MappedWeights {
    gguf: Arc<Gguf>,
    /// By [`WeightId`].
    tensors: Vec<TensorInfo>,
    /// Bytes of each.
    lens: Vec<usize>,
}

impl Weights for MappedWeights {
    fn bytes(&self, weight: WeightId) -> &[u8] {
        self.gguf
            .bytes(&self.tensors[weight.index()])
            .expect("invariant: checked, and its memory reserved, when the model was loaded")
    }

    fn len(&self, weight: WeightId) -> usize {
        self.lens[weight.index()]
    }

    fn read(&self, weight: WeightId, at: usize, out: &mut [u8]) -> std::io::Result<()> {
        self.gguf.read(&self.tensors[weight.index()], at, out)
    }

    fn release(&self, weight: WeightId) {
        self.gguf.release(&self.tensors[weight.index()]);
    }
}

/// A model file made ready to run.
#[derive(Debug)]
pub struct Model {
    /// The file.
    pub gguf: Arc<Gguf>,
    /// The architecture.
    pub spec: ArchSpec,
    /// The graph as built, one brick per operation.
    pub graph: Graph,
    /// The graph that runs, after fusion.
    pub fused: Graph,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template.
    pub chat: ChatTemplate,
    weights: Arc<MappedWeights>,
    /// The packed weights, as long as an engine uses them: engines on one model share them.
    packed: Mutex<Weak<PackedWeights>>,
}

impl Model {
    /// Opens a GGUF file and prepares everything but working memory.
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the file, and where.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::from_gguf(Arc::new(Gguf::open(path)?))
    }

    /// Prepares a file that is already open.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_gguf(gguf: Arc<Gguf>) -> Result<Self, LoadError> {
        Ok(Self::prepare(gguf, |_, _, _| ())?.0)
    }

    /// What [`Model::load`] and [`Model::engine`] do one after the other, side by side: weights are packed while the vocabulary
    /// is read. `options` sets up the engine, once the architecture is known.
    ///
    /// # Errors
    /// As [`Model::load`]; within the result, as [`Model::engine`].
    pub fn load_with_engine(
        path: impl AsRef<Path>,
        options: impl FnOnce(&ArchSpec) -> EngineOptions,
    ) -> Result<(Self, Result<Engine, EngineError>), LoadError> {
        let gguf = Arc::new(Gguf::open(path)?);
        let (model, engine) = Self::prepare(gguf, |spec, fused, weights| {
            weights.gguf.prefetch();
            Engine::new(fused, Arc::clone(weights) as Arc<dyn Weights>, &options(spec))
        })?;
        if let Ok(engine) = &engine {
            *model.packed.lock().unwrap_or_else(PoisonError::into_inner) =
                engine.packed().map_or_else(Weak::new, Arc::downgrade);
        }
        // Vocabulary, gains and matrices have been copied; what is still read, embeddings, comes back row by row.
        model.gguf.release_all();
        Ok((model, engine))
    }

    /// Prepares a file, and does `beside` while its vocabulary is read, which takes longest.
    fn prepare<T>(
        gguf: Arc<Gguf>,
        beside: impl FnOnce(&ArchSpec, &Graph, &Arc<MappedWeights>) -> T,
    ) -> Result<(Self, T), LoadError> {
        let path = gguf.path().map_or_else(|| PathBuf::from("<memory>"), Path::to_path_buf);
        let (words, rest) = std::thread::scope(|s| {
            let words = s.spawn(|| {
                let metadata = gguf.metadata();
                let tokenizer = Tokenizer::from_gguf(&metadata)?;
                let chat = ChatTemplate::from_gguf(&metadata, &tokenizer);
                // The vocabulary has been copied.
                gguf.release_metadata();
                Ok((tokenizer, chat))
            });
            let rest = Self::graph_and_weights(&gguf, &path).map(|(spec, graph, fused, weights)| {
                let weights = Arc::new(weights);
                let done = beside(&spec, &fused, &weights);
                (spec, graph, fused, weights, done)
            });
            (words.join(), rest)
        });
        let (spec, graph, fused, weights, done) = rest?;
        let (tokenizer, chat) = match words {
            Ok(words) => words.map_err(|source| LoadError::Tokenizer { path: path.clone(), source })?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if tokenizer.vocab_size() != spec.vocab {
            return Err(LoadError::VocabSize { path, tokens: tokenizer.vocab_size(), rows: spec.vocab });
        }
        let chat = chat.map_err(|source| LoadError::Chat { path, source })?;
        Ok((Self { gguf, spec, graph, fused, tokenizer, chat, weights, packed: Mutex::default() }, done))
    }

    fn graph_and_weights(gguf: &Arc<Gguf>, path: &Path) -> Result<(ArchSpec, Graph, Graph, MappedWeights), LoadError> {
        let path = || path.to_path_buf();
        let spec = ArchSpec::from_gguf(gguf).map_err(|source| LoadError::Arch { path: path(), source })?;
        let shape_of = |name: &str| gguf.tensor(name).and_then(|t| t.shape().ok());
        let graph =
            build_graph(&spec, &shape_of).map_err(|e| LoadError::Build { path: path(), source: Box::new(e) })?;
        let fused = passes::fuse_all(&graph).map_err(|e| LoadError::Graph { path: path(), source: Box::new(e) })?;
        let mut tensors = Vec::with_capacity(fused.weights().len());
        let mut lens = Vec::with_capacity(fused.weights().len());
        let embedding = WeightNames::GGUF.name(WeightRole::TokenEmbedding, 0);
        for w in fused.weights() {
            // No data of a file is touched: of a generated model only what is read as a whole is ever made as a whole.
            let checked = gguf.require(&w.name).and_then(|t| {
                gguf.reserve(t)?;
                if w.name == embedding {
                    // Rows of it are read in every call: it is made now, not in the first one.
                    gguf.bytes(t)?;
                }
                Ok((t.clone(), gguf.check(t)? as usize))
            });
            let (tensor, len) = checked.map_err(|source| LoadError::Tensor { path: path(), source })?;
            tensors.push(tensor);
            lens.push(len);
        }
        Ok((spec, graph, fused, MappedWeights { gguf: Arc::clone(gguf), tensors, lens }))
    }

    /// The weights of both graphs (passes keep weight ids).
    pub fn weights(&self) -> Arc<dyn Weights> {
        Arc::clone(&self.weights) as Arc<dyn Weights>
    }

    /// An engine for the fused graph.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn engine(&self, options: &EngineOptions) -> Result<Engine, EngineError> {
        self.gguf.prefetch();
        // Held while the first engine packs: a second one waits instead of packing again.
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = Engine::sharing(&self.fused, self.weights(), packed.upgrade(), options)?;
        if let Some(own) = engine.packed() {
            *packed = Arc::downgrade(own);
        }
        // Gains and matrices have been copied; what is still read, embeddings, comes back row by row.
        self.gguf.release_all();
        Ok(engine)
    }
}
