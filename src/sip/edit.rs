//! Splices: what is forwarded is what was received, but for these byte ranges.
#![forbid(unsafe_code)]

use std::ops::Range;

/// An ordered set of replacements; reused from message to message.
#[derive(Debug, Default)]
pub struct Edits {
    splices: Vec<Splice>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Splice {
    out: Range<usize>,
    text: Range<usize>,
}

impl Edits {
    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.splices.clear();
        self.text.clear();
    }

    /// Puts what `write` writes in the place of `range`. Insertions at one place keep their order.
    pub fn replace(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        self.splices.push(Splice { out: range, text: start..self.text.len() });
    }

    /// Puts what `write` writes before the byte at `at`.
    pub fn insert(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.replace(at..at, write);
    }

    /// Takes a range out.
    pub fn delete(&mut self, range: Range<usize>) {
        self.replace(range, |_| ());
    }

    /// By how many bytes the part from `at` on grows.
    pub fn growth_from(&self, at: usize) -> isize {
        let size = |range: &Range<usize>| isize::try_from(range.len()).unwrap_or(0);
        self.splices.iter().filter(|s| s.out.start >= at).map(|s| size(&s.text) - size(&s.out)).sum()
    }

    /// Appends `bytes` with all splices made. A splice that overlaps an earlier one is left out.
    pub fn apply(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.splices.sort_by_key(|splice| splice.out.start);
        let mut at = 0;
        for splice in &self.splices {
            if splice.out.start < at {
                continue;
            }
            out.extend_from_slice(bytes.get(at..splice.out.start).unwrap_or_default());
            out.extend_from_slice(self.text.get(splice.text.clone()).unwrap_or_default());
            at = splice.out.end;
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splices_are_made_in_order_of_place_and_then_of_time() {
        let mut edits = Edits::default();
        edits.replace(6..11, |t| t.extend_from_slice(b"door"));
        edits.insert(0, |t| t.extend_from_slice(b"1"));
        edits.insert(0, |t| t.extend_from_slice(b"2"));
        edits.delete(7..9);
        let mut out = b">".to_vec();
        edits.apply(b"hello world!", &mut out);
        assert_eq!(out, b">12hello door!");
        assert_eq!(edits.growth_from(6), -3);
    }
}
