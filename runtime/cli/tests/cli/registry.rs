//! `brick pull`, `list`, `rm`, and the ways a cache can be unusable. Nothing here reaches the network.

use brick_models::registry::KnownModels;

use crate::shell::Shell;

#[test]
fn an_unknown_name_suggests_near_ones() {
    let shell = Shell::with_models();
    for command in ["run smollm3 hi", "pull smolm2:135m", "inspect smollm2:135"] {
        shell.brick(command).fails(1, &["did you mean smollm2:135m?"]);
    }
    shell.brick("pull qwen2.5-coder:1.5").fails(1, &["did you mean qwen2.5-coder:1.5b?"]);
    shell.brick("pull nothing-like-it").fails(1, &["nothing-like-it", "known: smollm2:135m", "hf://"]);
    for name in ["hf://", "hf://owner", "hf://owner/repo", "hf://owner/../x.gguf"] {
        shell.brick(&format!("pull {name}")).fails(1, &["names no model"]);
    }
    shell.brick("run").arg("").arg("hi").fails(1, &["names no model"]);
}

#[test]
fn no_network_and_no_python() {
    let shell = Shell::new();
    for command in ["pull smollm2 -q", "pull smollm2:135m --json", "run smollm2 hi"] {
        let output = shell.brick(command).fails(1, &["smollm2:135m", "127.0.0.1:1", "python", "PATH"]);
        assert!(output.stderr.len() < 2000, "short enough to read: {output}");
    }
    shell.brick("pull hf://owner/repo/file.gguf").fails(1, &["hf://owner/repo", "127.0.0.1:1"]);
    assert_eq!(shell.brick("list --json").json()["models"], serde_json::json!([]));
}

#[test]
fn a_home_that_is_a_file() {
    let shell = Shell::with_models();
    shell.write("home", "not a directory");
    for command in ["list", "pull smollm2", "rm smollm2", "run smollm2 hi", "run qwen2-tiny.gguf hi"] {
        shell.brick(command).fails(1, &["is not a directory", "BRICK_HOME"]);
    }
    shell.brick("pull smollm2").env("BRICK_HOME", shell.path("home/below")).fails(1, &["home/below"]);
}

#[test]
fn a_home_that_cannot_be_written() {
    let shell = Shell::new();
    // A file where a directory is needed stops everybody, the superuser too.
    std::fs::create_dir(shell.home()).unwrap();
    shell.write("home/models", "");
    shell.write("home/locks", "");
    shell.brick("pull smollm2").fails(1, &["cannot", "home"]);
    shell.brick("run smollm2 hi").fails(1, &["cannot", "home"]);
}

#[test]
fn an_empty_cache() {
    let shell = Shell::new();
    let list = shell.brick("list").succeeds();
    assert_eq!(list.stdout.lines().count(), 1, "the heading: {list}");
    assert!(list.stderr.contains("brick list --known"), "{list}");
    assert_eq!(shell.brick("ls").succeeds().stdout, list.stdout);
    shell.brick("rm smollm2").fails(1, &["smollm2:135m is not in the cache"]);
    assert!(!shell.home().exists(), "looking creates nothing");
}

#[test]
fn known_names_are_listed_with_their_hashes() {
    let shell = Shell::new();
    let known = shell.brick("list --known --json").json()["known"].clone();
    let models = KnownModels::builtin().models();
    assert_eq!(known.as_array().unwrap().len(), models.len());
    for (row, model) in known.as_array().unwrap().iter().zip(models) {
        assert_eq!(row["name"], model.id());
        assert_eq!(row["sha256"].as_str().unwrap().len(), 64);
    }
    let text = shell.brick("list --known").succeeds().stdout;
    assert!(models.iter().all(|m| text.contains(&m.id())), "{text}");
}

#[test]
fn a_path_can_be_neither_pulled_nor_removed() {
    let shell = Shell::with_models();
    shell.brick("rm ./qwen2-tiny.gguf").fails(1, &["qwen2-tiny.gguf"]);
    shell.brick("pull ./qwen2-tiny.gguf").fails(1, &["qwen2-tiny.gguf"]);
    assert!(shell.path("qwen2-tiny.gguf").is_file());
}
