//! The `brick` command line.
fn main() {}
