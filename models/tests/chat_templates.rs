//! Published chat templates, against what Python's Jinja renders from them (`data/chat/templates.json`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use brick_models::chat::{ChatError, ChatTemplate, Message};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    /// What `strftime_now` tells, in seconds since 1970.
    now: u64,
    conversations: BTreeMap<String, Vec<Message>>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    #[serde(rename = "template")]
    source: String,
    /// By conversation, `, open` being with a generation prompt.
    results: BTreeMap<String, Outcome>,
}

/// What came of a conversation.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Prompt(String),
    /// The template's own words.
    Refused(String),
    /// An operation that is not defined.
    Fails(bool),
}

#[test]
fn prompts_are_those_of_python() {
    let goldens: Goldens = serde_json::from_str(include_str!("data/chat/templates.json")).unwrap();
    assert!(goldens.templates.len() >= 20);
    let now = UNIX_EPOCH + Duration::from_secs(goldens.now);
    let mut wrong = Vec::new();
    for Template { name, source, results } in &goldens.templates {
        assert_eq!(results.len(), 2 * goldens.conversations.len());
        let template = ChatTemplate::at_time(Some(source), "<s>", "</s>", Some(now)).unwrap();
        for (title, expected) in results {
            let (title, open) = title.strip_suffix(", open").map_or((title.as_str(), false), |title| (title, true));
            let found = match template.render(&goldens.conversations[title], open) {
                Ok(prompt) => Outcome::Prompt(prompt),
                Err(ChatError::Refused { message, line }) => {
                    assert!(line.is_some(), "{name}: {message}");
                    Outcome::Refused(message)
                }
                Err(ChatError::Render { .. }) => Outcome::Fails(true),
                Err(other) => panic!("{name}: {other}"),
            };
            if found != *expected {
                wrong.push(format!("{name}, {title}, open: {open}\n expected {expected:?}\n found    {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
