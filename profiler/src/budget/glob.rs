//! Patterns for brick names.

/// Whether `name` matches `pattern`, in which `*` stands for any characters and `?` for one.
///
/// Time is at most the product of the lengths: only the last `*` is ever tried again.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut i, mut j) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while j < n.len() {
        match p.get(i) {
            Some('*') => {
                retry = Some((i + 1, j));
                i += 1;
            }
            Some(&c) if c == '?' || c == n[j] => {
                i += 1;
                j += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (i, j) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

/// How much of a pattern is not a wildcard: of two patterns that match, the one with more of it says more.
pub(super) fn specificity(pattern: &str) -> usize {
    pattern.chars().filter(|c| !matches!(c, '*' | '?')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("blk.*.attn_qkv", "blk.12.attn_qkv"),
            ("blk.?.attn_qkv", "blk.3.attn_qkv"),
            ("*norm*", "blk.0.attn_norm"),
            ("a*b*c", "aXbXbc"),
            ("*ab", "aab"),
            ("?", "µ"),
        ] {
            assert!(matches(pattern, name), "{pattern} should match {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("?", ""),
            ("blk.?.attn_qkv", "blk.12.attn_qkv"),
            ("blk.*.attn_qkv", "blk.1.attn_qkv2"),
            ("a*b", "acd"),
            ("attn", "blk.0.attn"),
        ] {
            assert!(!matches(pattern, name), "{pattern} should not match {name}");
        }
    }

    #[test]
    fn a_malicious_pattern_takes_no_exponential_time() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }
}
