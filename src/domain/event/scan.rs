//! Splitting plain JSON objects quickly. It takes what nearly every event is (a flat object, one level of objects inside,
//! no escapes) and leaves everything else, faults above all, to the general parser, so only that one ever refuses.

use super::fields::Raw;
use std::borrow::Cow;

/// Returns an object's names and unread values; `None` where the general parser has to look.
pub(super) fn object(text: &str) -> Option<Vec<(Cow<'_, str>, Raw<'_>)>> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.space();
    let mut fields = Vec::with_capacity(8);
    cursor.members(|name, value| fields.push((Cow::Borrowed(name), Raw(value))), true)?;
    cursor.space();
    (cursor.at == text.len()).then_some(fields)
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
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

    /// Passes over an object, from its brace to its brace; `nests` says whether objects may stand in it.
    fn members(&mut self, mut found: impl FnMut(&'a str, &'a str), nests: bool) -> Option<()> {
        self.take(b'{')?;
        self.space();
        if self.peek()? == b'}' {
            self.step();
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
            let start = self.at;
            self.value(nests)?;
            found(name, self.text.get(start..self.at)?);
            self.space();
            match self.peek()? {
                b',' => self.step(),
                b'}' => {
                    self.step();
                    return Some(());
                }
                _ => return None,
            }
            self.space();
        }
    }

    /// Passes over a string; returns what stands between its quotes.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let rest = self.text.as_bytes().get(start..)?;
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        self.at = start.saturating_add(length);
        let inner = self.text.get(start..self.at)?;
        self.take(b'"')?;
        Some(inner)
    }

    fn value(&mut self, nests: bool) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' if nests => self.members(|_, _| {}, false),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
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
