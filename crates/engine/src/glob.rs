//! Patterns in which `*` stands for any text.

/// A pattern for whole texts: `*` stands for any text, every other character for itself.
#[derive(Clone, Copy, Debug)]
pub struct Glob<'a>(&'a str);

impl<'a> Glob<'a> {
    /// A pattern.
    pub fn new(pattern: &'a str) -> Self {
        Self(pattern)
    }

    /// Whether `text` as a whole is of this pattern. Time: proportional to pattern × text at worst.
    pub fn matches(self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else {
            return text == self.0;
        };
        let Some(mut text) = text.strip_prefix(start) else {
            return false;
        };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return text.ends_with(part);
            }
            match text.find(part) {
                Some(at) => text = &text[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("cpu", "cpu", true),
            ("cpu", "cpu_usage", false),
            ("cpu*", "cpu_usage", true),
            ("*usage", "cpu_usage", true),
            ("*pu*sa*", "cpu_usage", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axc", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }
}
