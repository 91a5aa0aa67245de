//! Numbers and names as text, the same in every report.

/// A number with about four significant digits: `0.0012`, `0.123`, `12.35`, `123.5`, `12346`.
pub fn number(x: f64) -> String {
    let digits = match x.abs() {
        a if a < 0.1 && a > 0.0 => 4,
        a if a < 10.0 => 3,
        a if a < 100.0 => 2,
        a if a < 10_000.0 => 1,
        _ => 0,
    };
    format!("{x:.digits$}")
}

/// A fraction in per cent.
pub fn percent(x: f64) -> String {
    format!("{:.1}%", x * 100.0)
}

/// Bytes in the unit that fits.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{} KiB", trim(n as f64 / 1024.0)),
        0x10_0000..0x4000_0000 => format!("{} MiB", trim(n as f64 / f64::from(1 << 20))),
        _ => format!("{} GiB", trim(n as f64 / f64::from(1 << 30))),
    }
}

fn trim(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{x:.1}") }
}

/// Microseconds as a duration: `12.3 µs`, `4.56 ms`, `7.89 s`.
pub fn duration(us: f64) -> String {
    match us {
        u if u < 1e3 => format!("{u:.1} µs"),
        u if u < 1e6 => format!("{:.2} ms", u / 1e3),
        u => format!("{:.2} s", u / 1e6),
    }
}

/// `1 token`, `2 tokens`.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A name from outside on one line, without control characters: a model's name must not be able to move the cursor.
pub fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that change how their neighbours are shown: direction marks, line separators, zero-width characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The same in ASCII.
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace(" · ", ", ").chars() {
        match c {
            'µ' => out.push('u'),
            '×' => out.push('x'),
            '–' => out.push('-'),
            '÷' => out.push('/'),
            c if c.is_ascii() => out.push(c),
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_four_digits() {
        let all = [0.0, 0.01234, 0.12345, 9.9994, 12.345, 123.45, 1234.5, 12345.6, -3.0].map(number);
        assert_eq!(all, ["0.000", "0.0123", "0.123", "9.999", "12.35", "123.5", "1234.5", "12346", "-3.000"]);
    }

    #[test]
    fn units_fit() {
        assert_eq!(
            [0, 1023, 1024, 49152, 1 << 20, 3 << 29].map(bytes),
            ["0 B", "1023 B", "1 KiB", "48 KiB", "1 MiB", "1.5 GiB"]
        );
        assert_eq!([1.0, 1500.0, 2.5e6].map(duration), ["1.0 µs", "1.50 ms", "2.50 s"]);
        assert_eq!([count(1, "token"), count(0, "token")], ["1 token", "0 tokens"]);
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(ascii("a · 12 µs × 3 – ü"), "a, 12 us x 3 - ?");
    }
}
