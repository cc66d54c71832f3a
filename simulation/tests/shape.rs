//! The shape of this crate; the rules stand in `tests/shape`.

use pgsoak_shape::Rules;

#[test]
fn the_source_tree_keeps_its_shape() {
    let rules = Rules { pure: &[], most_lines: 400 };
    let offences = pgsoak_shape::offences(env!("CARGO_MANIFEST_DIR"), rules).unwrap();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
