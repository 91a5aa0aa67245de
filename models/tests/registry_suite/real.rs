//! A real pull, over the network. By hand:
//! `BRICK_HOME=… BRICK_TEST_PULL=smollm2:135m cargo test -p brick-models --test registry_suite -- --ignored --nocapture real`.

use std::time::{Duration, Instant};

use brick_models::registry::{Progress, Registry};

struct Print;

impl Progress for Print {
    fn set_total(&self, total: Option<u64>) {
        println!("total {total:?}");
    }

    fn inc(&self, _: u64) {}

    fn message(&self, text: &str) {
        println!("{text}");
    }
}

#[test]
#[ignore = "needs the network; pulls the model that BRICK_TEST_PULL names into BRICK_HOME"]
fn real_pull() {
    let name = std::env::var("BRICK_TEST_PULL").expect("BRICK_TEST_PULL names a model");
    let registry = Registry::open_default().unwrap();
    let reference = registry.parse(&name).unwrap();
    let begun = Instant::now();
    let pulled = registry.pull(&reference, &Print).unwrap();
    println!("{:?} after {:?}", pulled, begun.elapsed());
    let begun = Instant::now();
    let model = registry.verify(&reference, &()).unwrap();
    assert_eq!(model, pulled.model);
    println!("verified after {:?}", begun.elapsed().max(Duration::from_nanos(1)));
    assert!(registry.pull(&reference, &()).unwrap().was_cached);
}
