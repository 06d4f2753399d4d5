//! The head as lines: unfolded, split into names and values, nothing in them that ends a line for another reader.
#![forbid(unsafe_code)]

use super::frame::length;
use super::header::{Name, is_token, trim};
use crate::gate::Reason;
use memchr::{memchr, memchr_iter, memmem};
use std::ops::Range;

/// One header field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Which header field.
    pub name: Name,
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    end: u32,
}

impl Field {
    /// The whole line with its CRLF.
    pub fn line(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The value without the blanks around it.
    pub fn value(&self) -> Range<usize> {
        self.value_start as usize..self.value_end as usize
    }

    /// The name as written.
    pub fn name_at(&self) -> Range<usize> {
        self.start as usize..self.name_end as usize
    }
}

/// The memory of the lines, reused from message to message.
#[derive(Debug, Default)]
pub struct Lines {
    unfolded: Vec<u8>,
    fields: Vec<Field>,
}

impl Lines {
    /// The message with its head unfolded, and the header fields of the head, which is `head` bytes long and may have
    /// `most` fields.
    pub fn split<'r>(
        &'r mut self,
        bytes: &'r [u8],
        head: usize,
        most: usize,
    ) -> Result<(&'r [u8], &'r [Field]), Reason> {
        let Self { unfolded, fields } = self;
        match index(bytes, head, most, fields)? {
            Folds::None => Ok((bytes, fields)),
            Folds::Some => {
                unfold(bytes, head, unfolded)?;
                index(unfolded, head, most, fields)?;
                Ok((unfolded, fields))
            }
        }
    }
}

/// Folded lines (§7.3.1) become one line of the same length, so that every reader behind us sees the same lines.
fn unfold(bytes: &[u8], head: usize, unfolded: &mut Vec<u8>) -> Result<(), Reason> {
    let text = bytes.get(..head).unwrap_or_default();
    unfolded.clear();
    unfolded.extend_from_slice(bytes);
    for at in memmem::find_iter(text, b"\r\n").filter(|&at| matches!(text.get(at + 2), Some(b' ' | b'\t'))) {
        let rest = text.get(at + 2..).unwrap_or_default();
        let line = rest.get(..memchr(b'\r', rest).unwrap_or(rest.len())).unwrap_or_default();
        // A line of nothing but blanks ends the head for some readers.
        if line.trim_ascii().is_empty() {
            return Err(Reason::Ambiguous);
        }
        if let Some(fold) = unfolded.get_mut(at..at + 2) {
            fold.fill(b' ');
        }
    }
    Ok(())
}

/// Whether the head has folded lines; if it has, its fields are not yet known.
enum Folds {
    None,
    Some,
}

/// Splits the head into lines and each line into name and value.
fn index(bytes: &[u8], head: usize, most: usize, fields: &mut Vec<Field>) -> Result<Folds, Reason> {
    fields.clear();
    let text = bytes.get(..head - 2).unwrap_or_default();
    // A NUL or other control character, or a CR inside a line, ends the line for some readers.
    let bare = |at: usize| text.get(at + 1) != Some(&b'\n');
    if memchr_iter(b'\r', text).any(bare) || has_control(text) && !text.split(|&b| b == b'\n').all(is_escaped) {
        return Err(Reason::Ambiguous);
    }
    let mut at = 0;
    for end in memchr_iter(b'\n', text) {
        let line = text.get(at..end).unwrap_or_default().strip_suffix(b"\r").ok_or(Reason::Ambiguous)?;
        if at > 0 {
            if matches!(line.first(), Some(b' ' | b'\t')) {
                return Ok(Folds::Some);
            }
            if fields.len() >= most {
                return Err(Reason::TooBig);
            }
            fields.push(field(bytes, at, line).ok_or(Reason::Malformed)?);
        }
        at = end + 1;
    }
    Ok(Folds::None)
}

/// The one Content-Length; two, even equal ones, end the message in two places for two readers (§20.14).
pub fn body_length(bytes: &[u8], fields: &[Field]) -> Result<Option<usize>, Reason> {
    let mut lengths = fields.iter().filter(|field| field.name == Name::ContentLength);
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => length(bytes.get(field.value()).unwrap_or_default()).map(Some),
        (Some(_), Some(_)) => Err(Reason::Framing),
    }
}

/// Whether a control character other than TAB, CR and LF is in `text`; eight bytes at a time, as most have none.
fn has_control(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    let slow = |bytes: &[u8]| bytes.iter().any(|&b| (b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n')) || b == 0x7f);
    let mut suspects = words.iter().filter(|bytes| {
        let word = u64::from_le_bytes(**bytes);
        // A borrow into a byte's high bit says that the byte, or one below it in the word, is less than what was taken.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        (below | (delete.wrapping_sub(ONES) & !delete)) & (ONES * 0x80) != 0
    });
    suspects.any(|bytes| slow(bytes)) || slow(rest)
}

/// Whether every control character of a line stands in a quoted display name, behind a backslash: the one place where it
/// may (§25.1 quoted-pair; RFC 4475 §3.1.1.2).
fn is_escaped(line: &[u8]) -> bool {
    if !has_control(line) {
        return true;
    }
    let (name, value) = line.split_at_checked(memchr(b':', line).unwrap_or(0)).unwrap_or_default();
    let mut quoted = false;
    let mut pair = false;
    let mut plain =
        matches!(Name::of(name.trim_ascii_end()), Name::From | Name::To | Name::Contact) && !has_control(name);
    for &b in value {
        plain &= pair || !has_control(&[b]);
        quoted ^= b == b'"' && !pair;
        pair = quoted && b == b'\\' && !pair;
    }
    plain && !quoted
}

fn field(bytes: &[u8], start: usize, line: &[u8]) -> Option<Field> {
    let name = line.get(..line.iter().position(|&b| !is_token(b))?).filter(|name| !name.is_empty())?;
    let blanks = line.get(name.len()..)?.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let (colon, len) = (name.len() + blanks, line.len());
    line.get(colon).filter(|&&b| b == b':')?;
    let value = trim(bytes, start + colon + 1..start + len);
    let small = |n: usize| u32::try_from(n).ok();
    Some(Field {
        name: Name::of(name),
        start: small(start)?,
        name_end: small(start + name.len())?,
        value_start: small(value.start)?,
        value_end: small(value.end)?,
        end: small(start + len + 2)?,
    })
}
