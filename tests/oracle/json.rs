//! JSON as the contract reads it: is this text well-formed, and where do its parts stand?
//!
//! A value stays a span of its line, because a dead letter carries the bytes as they stand and because
//! numbers must be judged as they are written (`1.0` is no integer). Nesting is followed with a list instead
//! of recursion, so that no depth of an ignored member can exhaust the stack.
//!
//! Reading chosen: an escaped surrogate without its partner is no text, so what holds it does not parse.
//! Numbers and nesting have no limits of their own: the grammar alone decides.

/// The span of the one value `text` consists of, without the white space around it.
pub fn whole(text: &str) -> Option<&str> {
    let start = space(text.as_bytes(), 0);
    let end = value_end(text.as_bytes(), start)?;
    (space(text.as_bytes(), end) == text.len()).then(|| &text[start..end])
}

/// The members of a well-formed object in the order written, repeated names included; else nothing.
pub fn members(object: &str) -> Option<Vec<(String, &str)>> {
    let bytes = object.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut found = Vec::new();
    let mut at = space(bytes, 1);
    while bytes[at] != b'}' {
        let start = space(bytes, name_end(bytes, at)?);
        let end = value_end(bytes, start)?;
        found.push((string(&object[at..string_end(bytes, at)?])?, &object[start..end]));
        at = after_comma(bytes, end);
    }
    Some(found)
}

/// The elements of a well-formed array; else nothing.
pub fn elements(array: &str) -> Option<Vec<&str>> {
    let bytes = array.as_bytes();
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let mut found = Vec::new();
    let mut at = space(bytes, 1);
    while bytes[at] != b']' {
        let end = value_end(bytes, at)?;
        found.push(&array[at..end]);
        at = after_comma(bytes, end);
    }
    Some(found)
}

/// The text of a well-formed string; else nothing.
pub fn string(span: &str) -> Option<String> {
    if span.starts_with('"') {
        serde_json::from_str(span).ok()
    } else {
        None
    }
}

/// A 64-bit integer that is written as one. `-0` is: it has neither fraction nor exponent.
pub fn integer(span: &str) -> Option<i64> {
    let digits = span.strip_prefix('-').unwrap_or(span);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        span.parse().ok()
    } else {
        None
    }
}

/// Where the value that starts at `at` ends, when it is well-formed.
fn value_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut open = Vec::new(); // the brackets around `at`
    loop {
        at = space(text, at);
        match *text.get(at)? {
            b'{' if text.get(space(text, at + 1)) == Some(&b'}') => at = space(text, at + 1) + 1,
            b'[' if text.get(space(text, at + 1)) == Some(&b']') => at = space(text, at + 1) + 1,
            b'{' => {
                open.push(b'{');
                at = name_end(text, at + 1)?;
                continue;
            }
            b'[' => {
                open.push(b'[');
                at += 1;
                continue;
            }
            b'"' => at = string_end(text, at)?,
            b'-' | b'0'..=b'9' => at = number_end(text, at)?,
            _ => at = literal_end(text, at)?,
        }
        // A value has ended: so does every bracket that closes behind it, until a comma asks for another.
        loop {
            let Some(bracket) = open.last() else {
                return Some(at);
            };
            at = space(text, at);
            match (bracket, *text.get(at)?) {
                (b'{', b'}') | (b'[', b']') => {
                    open.pop();
                    at += 1;
                }
                (b'{', b',') => {
                    at = name_end(text, at + 1)?;
                    break;
                }
                (b'[', b',') => {
                    at += 1;
                    break;
                }
                _ => return None,
            }
        }
    }
}

/// Behind the member name and colon that follow `at`.
fn name_end(text: &[u8], at: usize) -> Option<usize> {
    let colon = space(text, string_end(text, space(text, at))?);
    (text.get(colon) == Some(&b':')).then_some(colon + 1)
}

/// Behind the string that starts at `at`. Control characters must be escaped, escapes must mean a character.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut end = at + 1;
    let mut has_escapes = false;
    loop {
        match *text.get(end)? {
            b'"' => break,
            b'\\' => {
                has_escapes = true;
                end += 2;
            }
            0..0x20 => return None,
            _ => end += 1,
        }
    }
    let span = std::str::from_utf8(&text[at..=end]).ok()?;
    (!has_escapes || string(span).is_some()).then_some(end + 1)
}

/// Behind the number that starts at `at`: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let digits_end = |from: usize| {
        let count = text[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        (count > 0).then_some(from + count)
    };
    let start = at + usize::from(text[at] == b'-');
    let mut end = digits_end(start)?;
    if text[start] == b'0' && end > start + 1 {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end = digits_end(end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let signed = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end = digits_end(end + 1 + usize::from(signed))?;
    }
    Some(end)
}

/// Behind `true`, `false` or `null`.
fn literal_end(text: &[u8], at: usize) -> Option<usize> {
    let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
    literals
        .iter()
        .find(|literal| text[at..].starts_with(literal))
        .map(|literal| at + literal.len())
}

/// Over the white space from `at` on.
fn space(text: &[u8], at: usize) -> usize {
    at + text[at..]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count()
}

/// Behind a value inside well-formed brackets: at the next value or name, or at the closing bracket.
fn after_comma(text: &[u8], at: usize) -> usize {
    let behind = space(text, at);
    if text[behind] == b',' {
        space(text, behind + 1)
    } else {
        behind
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_decides_what_is_well_formed() {
        let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
        let good = [
            "{}",
            "[]",
            " { \"a\" : [ 1 , { } , [ ] ] } ",
            "\"\"",
            "\"\\ud83d\\ude00\"",
            "0",
            "-0",
            "1e999",
            "-1.5E+3",
            "[true,false,null]",
            "{\"a\":1,\"a\":2}",
            "\"\u{7f}\"",
            &deep,
        ];
        for text in good {
            assert!(super::whole(text).is_some(), "refused {text:.60}");
        }
        let bad = [
            "",
            " ",
            "{",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1}",
            "{\"a\":1]",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "nullx",
            "\"a",
            "\"\\x\"",
            "\"\t\"",
            "\"\0\"",
            "\"\\u12\"",
            "\"\\ud83d\"",
            "'a'",
            "\u{feff}{}",
            "{}{}",
            "[1 2]",
            "\"\\",
        ];
        for text in bad {
            assert!(super::whole(text).is_none(), "accepted {text}");
        }
    }

    #[test]
    fn parts_stand_as_they_are_written() {
        let object = r#"{ "a" : [1, 2.0] , "\u0061":{"b":"]}"} }"#;
        let members = super::members(object).expect("an object");
        assert_eq!(
            members,
            [("a".to_string(), "[1, 2.0]"), ("a".to_string(), r#"{"b":"]}"}"#)]
        );
        assert_eq!(
            super::elements(r#"[1 , "," ,[2]]"#),
            Some(vec!["1", "\",\"", "[2]"])
        );
        assert_eq!(super::elements("[ ]"), Some(vec![]));
        assert_eq!(
            (super::members("[1]"), super::elements("{}"), super::string("1")),
            (None, None, None)
        );
    }

    #[test]
    fn an_integer_is_written_as_one_and_has_64_bits() {
        for (span, integer) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1.0", None),
            ("1e3", None),
            ("\"1\"", None),
            ("null", None),
        ] {
            assert_eq!(super::integer(span), integer, "{span}");
        }
    }
}
