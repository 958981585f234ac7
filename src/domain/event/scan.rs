//! Splitting plain JSON objects quickly. It takes what nearly every event is (a flat object, one level of objects inside,
//! no escapes) and leaves everything else, faults above all, to the general parser, so only that one ever refuses.

use super::fields::Raw;
use std::borrow::Cow;

/// Returns an object's names and unread values; `None` where the general parser has to look.
pub(super) fn object(text: &str) -> Option<Vec<(Cow<'_, str>, Raw<'_>)>> {
    let mut cursor = Cursor::new(text);
    let mut fields = Vec::with_capacity(8);
    cursor.open()?;
    while let Some(name) = cursor.name()? {
        let start = cursor.at;
        cursor.value()?;
        fields.push((Cow::Borrowed(name), Raw::without_escapes(text.get(start..cursor.at)?)));
    }
    cursor.end().map(|()| fields)
}

/// A place in a text. `None` of any of its methods: the general parser has to look.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Whether nothing stands between here and the brace that opened the object.
    opened: bool,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0, opened: false }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    const fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.step();
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.step())
    }

    /// Enters an object.
    pub(super) fn open(&mut self) -> Option<()> {
        self.space();
        self.take(b'{')?;
        self.opened = true;
        Some(())
    }

    /// Passes over the name of the object's next member, up to the value; `Some(None)` where the object ends here.
    pub(super) fn name(&mut self) -> Option<Option<&'a str>> {
        self.space();
        let is_first = std::mem::take(&mut self.opened);
        match self.peek()? {
            b'}' => {
                self.step();
                return Some(None);
            }
            b',' if !is_first => {
                self.step();
                self.space();
            }
            _ if is_first => {}
            _ => return None,
        }
        let name = self.string()?;
        self.space();
        self.take(b':')?;
        self.space();
        Some(Some(name))
    }

    /// Makes sure that nothing follows.
    pub(super) fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    /// Passes over a string; returns what stands between its quotes.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let rest = self.text.as_bytes().get(start..)?;
        let length = plain_length(rest)?;
        self.at = start.saturating_add(length);
        let inner = self.text.get(start..self.at)?;
        self.take(b'"')?;
        Some(inner)
    }

    /// Passes over a value; in an object that is one, no other may stand.
    fn value(&mut self) -> Option<()> {
        if self.peek()? != b'{' {
            return self.scalar().map(drop);
        }
        self.open()?;
        while self.name()?.is_some() {
            self.scalar()?;
        }
        Some(())
    }

    /// Passes over a value that is no object and no array; returns it as it is written.
    pub(super) fn scalar(&mut self) -> Option<&'a str> {
        let start = self.at;
        match self.peek()? {
            b'"' => self.string().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }?;
        self.text.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let end = self.at.saturating_add(word.len());
        (self.text.get(self.at..end)? == word).then(|| self.at = end)
    }

    /// Passes over a number as JSON writes it: `-0.5`, `12`, `1e3`.
    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.step();
        }
        match self.peek()? {
            b'0' => self.step(),
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.step();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.step();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.step();
            }
            self.digits()?;
        }
        Some(())
    }

    /// Passes over one digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        (self.at > start).then_some(())
    }
}

/// How many bytes stand before the first quote, backslash or control character. Eight are looked at at once: of a word's
/// flags, the lowest is always true.
fn plain_length(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES.wrapping_mul(u64::from(bound))) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ ONES.wrapping_mul(u64::from(byte)), 1);
    let mut passed = 0_usize;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().ok()?);
        let found = equal(word, b'"') | equal(word, b'\\') | below(word, 0x20);
        if found != 0 {
            return passed.checked_add(usize::try_from(found.trailing_zeros() >> 3).ok()?);
        }
        passed = passed.saturating_add(8);
    }
    let rest = bytes.get(passed..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).map(|at| passed.saturating_add(at))
}

#[cfg(test)]
mod tests {
    use super::super::fields::general;
    use super::*;
    use proptest::prelude::*;

    /// What the scanner takes, the general parser takes too, and reads the same.
    fn agrees(text: &str) -> bool {
        let Some(scanned) = object(text) else { return false };
        let parsed = general(text.as_bytes()).unwrap_or_else(|error| panic!("{text} is refused: {error:?}")).0;
        assert_eq!(scanned.len(), parsed.len(), "{text}");
        for ((name, value), (wanted_name, wanted)) in scanned.iter().zip(&parsed) {
            assert_eq!((name, value.get()), (wanted_name, wanted.get()), "{text}");
        }
        true
    }

    #[test]
    fn ordinary_events_are_scanned() {
        for text in [
            r#"{"account_id":"a","metric":"m"}"#,
            r#" { "a" : -0.5e+3 , "b":true,"c":null,"d":{"x":"é","y":{}} } "#.replace(",\"y\":{}", "").as_str(),
            r#"{"a":0,"b":10.25,"dimensions":{"r":"eu","n":1,"f":false}}"#,
            "{}",
        ] {
            assert!(agrees(text), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_left_to_the_general_parser() {
        for text in [
            "",
            "{",
            "[]",
            "{}x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":NaN}",
            "{\"a\":tru}",
            "{\"a\":\"\\n\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":[1]}",
            "{\"a\":{\"b\":{}}}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1e}",
        ] {
            assert!(object(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_ends_where_it_ends_byte_by_byte(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x18_u8..0x28, 0x58_u8..0x60, 0x80_u8..0xff], 0..40)) {
            let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_length(&bytes), expected);
        }

        #[test]
        fn it_never_takes_what_the_general_parser_refuses(text in "[{}\\[\\]\":,a0-9.eE+\\-\\\\ tfn]{0,24}") {
            agrees(&text);
        }

        #[test]
        fn it_reads_as_the_general_parser_does(
            fields in prop::collection::vec(("[a-zé]{0,5}", prop_oneof![
                "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
                "\"[^\"\\\\\\x00-\\x1f]{0,8}\"",
                Just("true".to_owned()), Just("null".to_owned()), Just("{\"x\" : 1}".to_owned()),
            ]), 0..6),
            space in "[ \t\r\n]{0,2}",
        ) {
            let members: Vec<String> = fields.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}")).collect();
            let text = format!("{space}{{{}{space}}}{space}", members.join(","));
            prop_assert!(agrees(&text), "{}", text);
        }
    }
}
