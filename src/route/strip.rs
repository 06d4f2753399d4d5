//! The header fields that are taken out of outside traffic: claims that only the door or a trunk may make.
#![forbid(unsafe_code)]

/// A set of names; a trailing `*` stands for the rest of a name.
#[derive(Debug)]
pub(super) struct Strip {
    /// By first letter, so that most names meet no pattern at all.
    by_letter: Vec<Vec<Vec<u8>>>,
}

impl Strip {
    pub(super) fn new(patterns: &[String]) -> Self {
        let mut by_letter = vec![Vec::new(); 26];
        for pattern in patterns {
            if let Some(list) = slot(pattern.as_bytes()).and_then(|at| by_letter.get_mut(at)) {
                list.push(pattern.as_bytes().to_ascii_lowercase());
            }
        }
        Self { by_letter }
    }

    pub(super) fn holds(&self, name: &[u8]) -> bool {
        let patterns = slot(name).and_then(|at| self.by_letter.get(at)).map_or(&[][..], Vec::as_slice);
        patterns.iter().any(|pattern| match pattern.strip_suffix(b"*") {
            Some(start) => name.get(..start.len()).is_some_and(|part| part.eq_ignore_ascii_case(start)),
            None => name.eq_ignore_ascii_case(pattern),
        })
    }
}

fn slot(name: &[u8]) -> Option<usize> {
    name.first().filter(|b| b.is_ascii_alphabetic()).map(|b| usize::from(b.to_ascii_lowercase() - b'a'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_without_case() {
        let strip = Strip::new(&["path".into(), "remote-party-id".into(), "p-charging-*".into()]);
        for (name, held) in [
            ("Remote-Party-ID", true),
            ("Remote-Party-IDx", false),
            ("P-Charging-Vector", true),
            ("PATH", true),
            ("Priority", false),
        ] {
            assert_eq!(strip.holds(name.as_bytes()), held, "{name}");
        }
    }
}
