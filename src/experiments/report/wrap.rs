//! Text broken into lines at spaces.

/// Lines of at most `width` characters; a longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_spaces_and_loses_nothing() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two", 6), ["one", "two"], "the space counts");
        assert_eq!(wrap("± ± ±", 5), ["± ± ±"], "characters, not bytes");
        assert_eq!(wrap("a incomprehensible b", 4), ["a", "incomprehensible", "b"]);
        assert!(wrap("", 10).is_empty());
    }
}
