//! The setting templates run in. Published templates: `tests/chat_templates.rs`.
#![allow(clippy::unwrap_used)]

use super::*;

fn render(source: &str, messages: &[Message]) -> Result<String, ChatError> {
    ChatTemplate::from_source(Some(source), "<s>", "</s>").unwrap().render(messages, true)
}

fn user(content: &str) -> [Message; 1] {
    [Message::new("user", content)]
}

#[test]
fn without_a_template_it_is_chatml() {
    let template = ChatTemplate::from_source(None, "<s>", "</s>").unwrap();
    let messages = [Message::new("system", "Be <brief> & {{ kind }}."), Message::new("user", "Hi\n")];
    let prompt = "<|im_start|>system\nBe <brief> & {{ kind }}.<|im_end|>\n<|im_start|>user\nHi\n<|im_end|>\n";
    assert_eq!(template.render(&messages, false).unwrap(), prompt);
    assert_eq!(template.render(&messages, true).unwrap(), format!("{prompt}<|im_start|>assistant\n"));
    assert_eq!(template.render(&[], false).unwrap(), "");
}

#[test]
fn the_names_of_the_setting_are_there() {
    assert_eq!(render("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", &[]).unwrap(), "<s></s>True");
    assert_eq!(
        render("{{ tools is none }} {{ tools is defined }} {{ nothing is defined }}", &[]).unwrap(),
        "True True False"
    );
}

#[test]
fn blocks_are_trimmed_as_hugging_face_does() {
    let source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(render(source, &user("x")).unwrap(), "x\nend");
}

#[test]
fn python_methods_work() {
    let cases = [
        ("{{ messages[0].content.strip().upper() }}", "A B"),
        ("{{ messages[0]['content'].split(' ')|length }}", "4"),
        ("{{ messages[0].get('name', 'none') }}", "none"),
        ("{% for key, value in messages[0].items() %}{{ key }};{% endfor %}", "role;content;"),
        ("{{ messages[-1].role.title() }}{{ messages[0:1]|length }}", "User1"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 2 %}{{ ns.n }}", "2"),
        ("{{ {'a': [1, '<é>'], 'b': none} | tojson }}", r#"{"a": [1, "<é>"], "b": null}"#),
        ("{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"),
        ("{% generation %}\nx{%- endgeneration %}", "x"),
        ("a {%- generation -%} x", "ax"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &user(" a b ")).unwrap(), expected, "{source}");
    }
}

#[test]
fn the_clock_can_be_fixed() {
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400 * 365);
    let at = |source| ChatTemplate::at_time(Some(source), "", "", Some(now)).unwrap().render(&[], false);
    assert_eq!(at("{{ strftime_now('%d %b %Y') }}").unwrap(), "01 Jan 1971");
    let error = at("\n{{ strftime_now('%E') }}").unwrap_err();
    assert!(matches!(&error, ChatError::Render { line: Some(2), message } if message.contains("\"%E\"")), "{error}");
}

#[test]
fn errors_tell_the_line_and_the_templates_words() {
    let error = ChatTemplate::from_source(Some("a\nb {% if %}"), "", "").unwrap_err();
    assert!(matches!(error, ChatError::Syntax { line: Some(2), .. }), "{error}");
    assert!(error.to_string().starts_with("chat template, line 2: expected a Jinja template, found syntax error"));

    let error = render("\n\n{% if true %}{{ raise_exception('no ' + messages[0].role) }}{% endif %}", &user("x"));
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "chat template, line 3: the model does not take this conversation: no user");

    for source in ["\n{{ nothing.at.all }}", "\n{{ messages[0].content.frobnicate() }}", "\n{{ nothing() }}"] {
        let error = render(source, &user("x")).unwrap_err();
        assert!(matches!(error, ChatError::Render { line: Some(2), .. }), "{source}: {error}");
    }
}

#[test]
fn hostile_templates_end() {
    let nested = "{% for i in range(10000) %}".repeat(3) + &"{% endfor %}".repeat(3);
    let error = render(&nested, &[]).unwrap_err();
    assert!(matches!(&error, ChatError::Render { message, .. } if message.contains("fuel")), "{error}");
    let error = render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", &[]).unwrap_err();
    assert!(matches!(error, ChatError::Render { .. }), "{error}");
    assert!(ChatTemplate::from_source(Some(&"{{ (".repeat(100_000)), "", "").is_err());
    assert!(ChatTemplate::from_source(Some(&format!("{{{{ {} }}}}", "(".repeat(100_000))), "", "").is_err());
    // What users say is never a template.
    assert_eq!(render("{{ messages[0].content }}", &user("{{ 1 }}{% x %}")).unwrap(), "{{ 1 }}{% x %}");
}

#[test]
fn a_rendered_bos_is_seen() {
    let template = ChatTemplate::from_source(Some("{{ bos_token }}x"), "<s>", "").unwrap();
    assert!(template.begins_with_bos(&template.render(&[], false).unwrap()));
    assert!(!template.begins_with_bos("x"));
    let without = ChatTemplate::from_source(Some("{{ bos_token }}x"), "", "").unwrap();
    assert!(!without.begins_with_bos(&without.render(&[], false).unwrap()));
}
