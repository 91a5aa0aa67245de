//! One page with every figure of a profile.
//!
//! The page is written by hand, without a framework. It holds the profile as JSON and draws it; its content security
//! policy forbids loading anything. Files beside this one, in the order in which they run:
//!
//! | file | content |
//! | --- | --- |
//! | `page.html`, `style.css` | skeleton and looks: light, dark, printed |
//! | `base.js` | elements, numbers, colours, tooltips |
//! | `table.js` | budget table |
//! | `graph.js` | execution graph |
//! | `spans.js`, `flame.js` | charts of spans; flame chart, icicle |
//! | `roofline.js` | roofline |
//! | `spread.js` | layers × kinds, threads, latency, batch sizes |
//! | `main.js` | overview, phases, and what the page says about itself at its end |

use std::collections::BTreeMap;

use bricks::BrickKind;
use serde::Serialize;

use crate::profile::Profile;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 7] = [
    include_str!("base.js"),
    include_str!("table.js"),
    include_str!("graph.js"),
    include_str!("spans.js"),
    include_str!("flame.js"),
    include_str!("roofline.js"),
    include_str!("spread.js"),
];
const MAIN: &str = include_str!("main.js");

/// What the page draws.
#[derive(Serialize)]
struct Data<'a> {
    profile: &'a Profile,
    /// How kinds are written, by their name in JSON.
    names: BTreeMap<String, Named>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
}

impl Profile {
    /// The profile as one HTML page: header, a tab per phase, budget table, execution graph, flame chart, icicle, roofline,
    /// heat map of the layers, threads, latency, batch sizes.
    ///
    /// The page needs no network and no other file; its content security policy forbids both. No name in the profile can
    /// become markup: the data is JSON without `<`, and the page sets text only as text.
    pub fn to_html(&self) -> String {
        let data = embedded(self);
        let scripts: usize = SCRIPTS.iter().map(|s| s.len()).sum();
        let mut out = String::with_capacity(PAGE.len() + STYLE.len() + scripts + MAIN.len() + data.len());
        let mut rest = PAGE;
        while let Some((before, name, after)) = placeholder(rest) {
            out.push_str(before);
            match name {
                "style" => out.push_str(STYLE.trim_end()),
                "data" => out.push_str(&data),
                _ => {
                    out.extend(SCRIPTS);
                    out.push_str(MAIN.trim_end());
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// The next `{{name}}`, and what is around it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

/// The data as JSON that can stand in a `<script>`: a parser of HTML looks for `<` there and for nothing else. Line and
/// paragraph separators end a line of older JavaScript; here they are escaped like the rest.
fn embedded(profile: &Profile) -> String {
    let name = |kind: BrickKind| match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => Some((name, Named { name: kind.name() })),
        _ => None,
    };
    let data = Data { profile, names: BrickKind::ALL.into_iter().filter_map(name).collect() };
    let json = serde_json::to_string(&data).expect("invariant: maps of a profile have text keys");
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}
