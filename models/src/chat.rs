//! Chat templates: a conversation as the prompt the model was trained on.
//!
//! Models state their prompt format as a [Jinja](https://jinja.palletsprojects.com) template in their file
//! (`tokenizer.chat_template`), written for Python's engine in the setting that Hugging Face's `apply_chat_template`
//! gives it. [`ChatTemplate`] provides that setting: block trimming, Python's methods on strings and dictionaries,
//! `raise_exception`, `strftime_now`, `tojson` as Python writes it, loop controls, and `{% generation %}` marks.
//! Models without a template get ChatML.
//!
//! ```
//! use brick_models::chat::{ChatTemplate, Message};
//!
//! let template = ChatTemplate::from_source(None, "", "<|im_end|>")?;
//! let prompt = template.render(&[Message::new("user", "Hi!")], true)?;
//! assert_eq!(prompt, "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n");
//! # Ok::<(), brick_models::chat::ChatError>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod python;
mod strftime;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};

use crate::format::gguf::Metadata;
use crate::tokenizer::Tokenizer;

pub use error::ChatError;

/// The format of models that name none, after OpenAI's ChatML; most fine-tunes follow it.
const CHATML: &str = "\
{% for message in messages %}\
<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Name of the template in its environment.
const NAME: &str = "chat_template";

/// Engine steps one rendering may take. A thousand messages take some 10^5 with the longest published templates; this
/// takes a second or two, after which a template is broken or hostile.
const FUEL: u64 = 20_000_000;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a template, or ChatML if there is none. `bos` and `eos` are the spellings of the tokens that begin and
    /// end a sequence, empty if the vocabulary has none.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] if `source` is not a template.
    pub fn from_source(source: Option<&str>, bos: &str, eos: &str) -> Result<Self, ChatError> {
        Self::at_time(source, bos, eos, None)
    }

    /// As [`from_source`](Self::from_source), with `strftime_now` telling a fixed time, so that prompts are
    /// reproducible.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] if `source` is not a template.
    pub fn at_time(source: Option<&str>, bos: &str, eos: &str, now: Option<SystemTime>) -> Result<Self, ChatError> {
        let mut environment = python::environment(now);
        environment.set_fuel(Some(FUEL));
        let source = python::without_generation_marks(source.unwrap_or(CHATML));
        environment.add_template_owned(NAME, source).map_err(|e| ChatError::syntax(&e))?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template in a model's file, with the spellings of the special tokens from its `tokenizer`.
    ///
    /// # Errors
    /// [`ChatError::Metadata`] if the key holds no string, [`ChatError::Syntax`] if that is not a template.
    pub fn from_gguf(metadata: &Metadata<'_>, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id).ok()).unwrap_or_default();
        let source = metadata.opt::<&str>("tokenizer.chat_template")?;
        Self::from_source(source, &spelling(tokenizer.bos()), &spelling(tokenizer.eos()))
    }

    /// The prompt for a conversation. `add_generation_prompt` ends it where the assistant's answer begins.
    ///
    /// The prompt holds special tokens as text, mostly with the one that begins a sequence: encode it with
    /// [`parse_special`](crate::tokenizer::EncodeOptions::parse_special), and without
    /// [`add_special`](crate::tokenizer::EncodeOptions::add_special) if it [begins with
    /// `bos`](Self::begins_with_bos).
    ///
    /// # Errors
    /// [`ChatError::Refused`] if the template does not take this conversation, [`ChatError::Render`] if it fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(|e| ChatError::render(&e))?;
        let context = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos,
            eos_token => self.eos,
            tools => (),
            documents => (),
        };
        template.render(context).map_err(|e| ChatError::render(&e))
    }

    /// Whether a rendered prompt begins with the token that begins a sequence, so that encoding must not add another.
    pub fn begins_with_bos(&self, prompt: &str) -> bool {
        !self.bos.is_empty() && prompt.starts_with(&self.bos)
    }
}
