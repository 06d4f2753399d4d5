//! Header fields: their names, long and short, and the small grammars of their values (RFC 3261 §20, §25.1).
#![forbid(unsafe_code)]

use super::uri::{Defect, Uri, check_host, split_port};
use std::ops::Range;

/// The header fields that the door reads; everything else passes untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Via, v
    Via,
    /// From, f
    From,
    /// To, t
    To,
    /// Call-ID, i
    CallId,
    /// CSeq
    CSeq,
    /// Contact, m
    Contact,
    /// Content-Length, l
    ContentLength,
    /// Content-Type, c
    ContentType,
    /// Max-Forwards
    MaxForwards,
    /// Route
    Route,
    /// Record-Route
    RecordRoute,
    /// Expires
    Expires,
    /// Proxy-Require
    ProxyRequire,
    /// Any other.
    Other,
}

impl Name {
    /// Looks a name up, long or short, without case (§7.3.3).
    pub fn of(name: &[u8]) -> Self {
        let is = |long: &[u8]| name.eq_ignore_ascii_case(long);
        match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
            (1, Some(b'v')) => Self::Via,
            (1, Some(b'f')) => Self::From,
            (1, Some(b't')) => Self::To,
            (1, Some(b'i')) => Self::CallId,
            (1, Some(b'm')) => Self::Contact,
            (1, Some(b'l')) => Self::ContentLength,
            (1, Some(b'c')) => Self::ContentType,
            (2, _) if is(b"to") => Self::To,
            (3, _) if is(b"via") => Self::Via,
            (4, Some(b'f')) if is(b"from") => Self::From,
            (4, Some(b'c')) if is(b"cseq") => Self::CSeq,
            (5, _) if is(b"route") => Self::Route,
            (7, Some(b'c')) if is(b"call-id") => Self::CallId,
            (7, Some(b'c')) if is(b"contact") => Self::Contact,
            (7, Some(b'e')) if is(b"expires") => Self::Expires,
            (12, Some(b'm')) if is(b"max-forwards") => Self::MaxForwards,
            (12, Some(b'c')) if is(b"content-type") => Self::ContentType,
            (12, Some(b'r')) if is(b"record-route") => Self::RecordRoute,
            (13, Some(b'p')) if is(b"proxy-require") => Self::ProxyRequire,
            (14, Some(b'c')) if is(b"content-length") => Self::ContentLength,
            _ => Self::Other,
        }
    }
}

/// token of §25.1.
pub const fn is_token(b: u8) -> bool {
    // Asked of every byte of every header field name: one bit a character, no branches.
    const BITS: u128 = {
        let mut bits = 0;
        let mut at = 0u8;
        while at < 128 {
            let other = matches!(at, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
            if at.is_ascii_alphanumeric() || other {
                bits |= 1 << at;
            }
            at += 1;
        }
        bits
    };
    b < 128 && BITS >> (b & 127) & 1 != 0
}

/// Where the quoted string that begins `bytes` ends, its quotes included.
fn quoted(bytes: &[u8]) -> Result<usize, Defect> {
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Err(Defect::Malformed),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// The values of a comma list, with where each stands in `text`. Commas in quoted strings and in `<…>` do not count.
pub fn list(text: &[u8]) -> impl Iterator<Item = Result<Range<usize>, Defect>> + '_ {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let start = at?;
        match value_end(text, start) {
            Ok(end) => {
                at = (end < text.len()).then_some(end + 1);
                Some(Ok(trim(text, start..end)))
            }
            Err(defect) => {
                at = None;
                Some(Err(defect))
            }
        }
    })
}

fn value_end(text: &[u8], start: usize) -> Result<usize, Defect> {
    let mut at = start;
    let mut angle = false;
    while let Some(&b) = text.get(at) {
        at += match b {
            b'"' if !angle => quoted(text.get(at..).unwrap_or_default())?,
            b',' if !angle => return Ok(at),
            b'<' | b'>' if angle == (b == b'<') => return Err(Defect::Malformed),
            b'<' | b'>' => {
                angle = !angle;
                1
            }
            _ => 1,
        };
    }
    if angle { Err(Defect::Malformed) } else { Ok(at) }
}

/// A range without the blanks at its ends.
pub fn trim(text: &[u8], range: Range<usize>) -> Range<usize> {
    let Range { mut start, mut end } = range;
    while start < end && text.get(start).is_some_and(u8::is_ascii_whitespace) {
        start += 1;
    }
    while start < end && text.get(end - 1).is_some_and(u8::is_ascii_whitespace) {
        end -= 1;
    }
    start..end
}

/// Whether `text` holds `word`, case folded.
pub fn holds(text: &[u8], word: &[u8]) -> bool {
    let Some(&first) = word.first() else { return false };
    let mut tries = memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text);
    tries.any(|at| text.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word)))
}

/// A name-addr or addr-spec with its header parameters: From, To, Contact, Route (§20.10).
#[derive(Clone, Debug)]
pub struct Address<'a> {
    /// The URI.
    pub uri: Uri<'a>,
    /// Where the URI stands in the text that was parsed.
    pub uri_at: Range<usize>,
    /// Whether it stands in `<…>`.
    pub angle: bool,
    /// The parameters behind it, from the first `;`, or empty.
    pub params: &'a [u8],
}

impl<'a> Address<'a> {
    /// Reads one value, not a list.
    pub fn parse(text: &'a [u8]) -> Result<Self, Defect> {
        let (range, tail, angle) = locate(text)?;
        let uri = Uri::parse(text.get(range.clone()).unwrap_or_default())?;
        let params = text.get(trim(text, tail..text.len())).unwrap_or_default();
        check_params(params)?;
        Ok(Self { uri, uri_at: range, angle, params })
    }

    /// A header parameter's value; `Some("")` for one without.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        params(self.params).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The tag, if there is exactly one that is a token.
    pub fn tag(&self) -> Result<Option<&'a [u8]>, Defect> {
        let mut tags = params(self.params).filter(|(key, _)| key.eq_ignore_ascii_case(b"tag"));
        match (tags.next(), tags.next()) {
            (None, _) => Ok(None),
            (Some((_, tag)), None) if !tag.is_empty() && tag.iter().all(|&b| is_token(b)) => Ok(Some(tag)),
            (Some(_), None) => Err(Defect::Malformed),
            (Some(_), Some(_)) => Err(Defect::Ambiguous),
        }
    }
}

/// Where the URI stands, where the parameters begin, and whether there are angle brackets.
fn locate(text: &[u8]) -> Result<(Range<usize>, usize, bool), Defect> {
    let mut at = 0;
    let start = loop {
        match text.get(at) {
            None => break None,
            Some(b'<') => break Some(at + 1),
            Some(b'"') if text.get(..at).is_some_and(|before| before.trim_ascii().is_empty()) => {
                at += quoted(text.get(at..).unwrap_or_default())?;
                // After a quoted display name only blanks may come before the bracket.
                let gap = text.get(at..).unwrap_or_default();
                at += gap.len() - gap.trim_ascii_start().len();
                if text.get(at) != Some(&b'<') {
                    return Err(Defect::Malformed);
                }
            }
            // A display name without quotes is tokens and blanks; bytes above ASCII are common there and harmless.
            Some(&b) if is_token(b) || b >= 0x80 || matches!(b, b' ' | b'\t') => at += 1,
            Some(_) => break None,
        }
    };
    if let Some(start) = start {
        let rest = text.get(start..).unwrap_or_default();
        let len = rest.iter().position(|&b| b == b'>').ok_or(Defect::Malformed)?;
        return Ok((start..start + len, start + len + 1, true));
    }
    // An addr-spec without brackets ends at the first `;` (§20): a `@` behind it is read as user by some and as
    // parameter by others, and `?` and `,` need the brackets.
    let range = trim(text, 0..text.iter().position(|&b| b == b';').unwrap_or(text.len()));
    let end = range.end;
    if text.get(end..).unwrap_or_default().contains(&b'@') {
        return Err(Defect::Ambiguous);
    }
    if text.get(range.clone()).unwrap_or_default().iter().any(|b| matches!(b, b'?' | b',')) {
        return Err(Defect::Malformed);
    }
    Ok((range, end, false))
}

/// `;name[=value]` pairs; blanks around `;` and `=` are allowed (§25.1 SEMI, EQUAL). Call [`check_params`] first.
pub fn params(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    param_ranges(text).map(|(name, value)| (text.get(name).unwrap_or_default(), text.get(value).unwrap_or_default()))
}

/// The same as ranges of `text`.
pub fn param_ranges(text: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + 1;
        let mut equal = None;
        let mut end = start;
        text.get(end)?;
        while let Some(&b) = text.get(end) {
            match b {
                b';' => break,
                b'"' => end += quoted(text.get(end..)?).unwrap_or(text.len() - end),
                b'=' if equal.is_none() => {
                    equal = Some(end);
                    end += 1;
                }
                _ => end += 1,
            }
        }
        at = end;
        let name = trim(text, start..equal.unwrap_or(end));
        let value = equal.map_or(end..end, |equal| trim(text, equal + 1..end));
        Some((name, value))
    })
}

/// Whether `text` is nothing but well-formed `;name[=value]`.
pub fn check_params(text: &[u8]) -> Result<(), Defect> {
    if text.is_empty() {
        return Ok(());
    }
    if text.first() != Some(&b';') || text.last() == Some(&b';') {
        return Err(Defect::Malformed);
    }
    for (name, value) in params(text) {
        let quoted_value = value.first() == Some(&b'"') && quoted(value) == Ok(value.len());
        // A value is a token, a host, or a quoted string; real ones hold `:`, `/`, `@` and `<urn…>` too.
        let plain = value
            .iter()
            .all(|&b| (b.is_ascii_graphic() || b >= 0x80) && !matches!(b, b'"' | b',' | b'<' | b'>' | b';'));
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) || !(quoted_value || plain) {
            return Err(Defect::Malformed);
        }
    }
    Ok(())
}

/// One Via value (§20.42).
#[derive(Clone, Debug)]
pub struct Via<'a> {
    /// The value's bytes.
    pub text: &'a [u8],
    /// Host and port of sent-by, as written.
    pub sent_by: &'a [u8],
    /// The host of sent-by.
    pub host: &'a [u8],
    /// Where the parameters begin in `text`.
    pub params_at: usize,
}

impl<'a> Via<'a> {
    /// Reads one value, not a list.
    pub fn parse(text: &'a [u8]) -> Result<Self, Defect> {
        let mut rest = text;
        for (part, last) in [(&b"SIP"[..], false), (b"2.0", false), (b"", true)] {
            let len = rest.iter().position(|&b| !is_token(b)).ok_or(Defect::Malformed)?;
            let (word, tail) = rest.split_at_checked(len).ok_or(Defect::Malformed)?;
            if word.is_empty() || (!last && !word.eq_ignore_ascii_case(part)) {
                return Err(Defect::Malformed);
            }
            let blanks = tail.len() - tail.trim_ascii_start().len();
            rest = tail.trim_ascii_start();
            if last && blanks == 0 {
                return Err(Defect::Malformed);
            }
            if !last {
                rest = rest.strip_prefix(b"/").ok_or(Defect::Malformed)?.trim_ascii_start();
            }
        }
        let at = text.len() - rest.len();
        let params_at = rest.iter().position(|&b| b == b';').map_or(text.len(), |len| at + len);
        let sent_by = text.get(trim(text, at..params_at)).unwrap_or_default();
        let (host, port) = match sent_by.iter().position(|&b| b == b':').filter(|_| sent_by.first() != Some(&b'[')) {
            // Blanks may stand around the colon (§25.1 COLON).
            Some(colon) => (sent_by.get(..colon).unwrap_or_default().trim_ascii_end(), sent_by.get(colon + 1..)),
            None => (split_port(sent_by)?.0, None),
        };
        check_host(host)?;
        if let Some(port) = port.map(<[u8]>::trim_ascii) {
            let digits = !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
            digits.then_some(()).ok_or(Defect::Malformed)?;
        }
        check_params(text.get(params_at..).unwrap_or_default().trim_ascii_end())?;
        Ok(Self { text, sent_by, host, params_at })
    }

    /// A parameter's value; `Some("")` for one without.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        let text = self.text.get(self.params_at..).unwrap_or_default();
        params(text).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_in_all_their_forms() {
        for (text, name) in [
            ("f", Name::From),
            ("FROM", Name::From),
            ("L", Name::ContentLength),
            ("cSeQ", Name::CSeq),
            ("X", Name::Other),
        ] {
            assert_eq!(Name::of(text.as_bytes()), name);
        }
    }

    #[test]
    fn addresses() {
        let parse = |text: &'static str| Address::parse(text.as_bytes());
        let a = parse("\"evil <sip:x@evil>, \\\"q\\\" ; \" <sip:alice@good;x=1?h=v> ; tag = f ;q=\"a;b\"").unwrap();
        assert_eq!(
            (a.uri.host, a.tag().unwrap(), a.param(b"q")),
            (&b"good"[..], Some(&b"f"[..]), Some(&b"\"a;b\""[..]))
        );
        let a = parse("caller<sip:caller@example.com>;tag=323").unwrap();
        assert_eq!((a.uri.host, a.angle), (&b"example.com"[..], true));
        let a = parse("sip:alice@good;tag=x").unwrap();
        assert_eq!((a.uri.text, a.tag().unwrap()), (&b"sip:alice@good"[..], Some(&b"x"[..])));
        for bad in [
            "sip:good;x@evil",
            "<sip:a@b>, <sip:c@d>",
            "\"a\" b <sip:a@b>",
            "\"a <sip:a@b>",
            "< sip:a@b>",
            "<sip:a@b",
            "a:b <sip:a@b>",
            "sip:a@b?c=d",
            "<sip:a@b>x",
            "<sip:a@b>;",
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("<sip:a@b>;tag=1;TAG=2").unwrap().tag(), Err(Defect::Ambiguous));
        assert_eq!(parse("<sip:a@b>;tag").unwrap().tag(), Err(Defect::Malformed));
    }

    #[test]
    fn lists_split_where_no_quote_or_bracket_holds_the_comma() {
        let text = b"\"a,b\" <sip:x,y@h> , <sip:z@h>;p=\"1,2\"";
        let got: Vec<_> = list(text).map(|r| std::str::from_utf8(&text[r.unwrap()]).unwrap()).collect();
        assert_eq!(got, ["\"a,b\" <sip:x,y@h>", "<sip:z@h>;p=\"1,2\""]);
    }

    #[test]
    fn vias() {
        let via = Via::parse(b"SIP  /   2.0  /UDP  192.0.2.2 : 5060 ;branch=390skdjuw;rport").unwrap();
        assert_eq!(
            (via.host, via.param(b"branch"), via.param(b"rport"), via.param(b"x")),
            (&b"192.0.2.2"[..], Some(&b"390skdjuw"[..]), Some(&b""[..]), None)
        );
        assert_eq!(
            Via::parse(b"SIP/2.0/TLS [2001:db8::1]:5061;received=[::1];branch=z").unwrap().sent_by,
            b"[2001:db8::1]:5061"
        );
        for bad in [
            "foo",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/1.0/UDP h",
            "SIP/2.0/UDPh",
            "SIP/2.0/UDP h i",
            "SIP/2.0/UDP h:x",
            "SIP/2.0/UDP h;",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
