//! The alphabet byte-level BPE vocabularies are spelled in: one printable character per byte.
//!
//! GPT-2's vocabulary is a text file split at white space, so the bytes that are not printable in Latin-1 (0x00 to
//! 0x20, 0x7F to 0xA0, 0xAD) are spelled U+0100 upward in their order; all others are spelled as the Latin-1
//! character they are. A space is therefore U+0120 (`Ġ`) and a newline U+010A (`Ċ`).

/// The character that spells each byte.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    let mut byte = 0u32;
    while byte < 256 {
        let code = if is_spelled_as_itself(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        if let Some(c) = char::from_u32(code) {
            chars[byte as usize] = c;
        }
        byte += 1;
    }
    chars
};

/// Spelled characters lie below this.
const END: usize = 0x100 + 68;

/// The byte each character spells, by code point.
const BYTES: [Option<u8>; END] = {
    let mut bytes = [None; END];
    let mut byte = 0usize;
    while byte < 256 {
        bytes[CHARS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
};

const fn is_spelled_as_itself(byte: u32) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that spells `byte`.
pub(crate) const fn char_of(byte: u8) -> char {
    CHARS[byte as usize]
}

/// Appends the spelling of `bytes`.
pub(super) fn append_spelled(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.extend_from_slice(char_of(byte).encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Appends the bytes that `text` spells, or `text` itself if it holds anything outside the alphabet: vocabularies
/// hold a few tokens that were added as they are written.
pub(super) fn append_bytes(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    let spelled = std::str::from_utf8(text).is_ok_and(|text| {
        text.chars().all(|c| match BYTES.get(c as usize) {
            Some(Some(byte)) => {
                out.push(*byte);
                true
            }
            _ => false,
        })
    });
    if !spelled {
        out.truncate(start);
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut spelled = Vec::new();
        append_spelled(&mut spelled, &all);
        let text = String::from_utf8(spelled.clone()).expect("the alphabet is UTF-8");
        assert_eq!(text.chars().count(), 256);
        assert!(text.chars().all(|c| !c.is_whitespace() && !c.is_control()), "{text}");
        let mut back = Vec::new();
        append_bytes(&mut back, &spelled);
        assert_eq!(back, all);
    }

    #[test]
    fn the_published_spellings() {
        assert_eq!([b' ', b'\n', 0x7F, 0xA0, 0xAD, b'!', 0xFF].map(char_of), ['Ġ', 'Ċ', 'ġ', 'ł', 'Ń', '!', 'ÿ']);
    }

    #[test]
    fn text_outside_the_alphabet_is_kept() {
        for text in ["<｜fim▁hole｜>".as_bytes(), b"a b", &[b'a', 0xFF]] {
            let mut out = b"before".to_vec();
            append_bytes(&mut out, text);
            assert_eq!(out, [b"before", text].concat());
        }
    }
}
