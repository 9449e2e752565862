//! Faults as switches: `if crate::planted(N) { with the fault } else { as it was }`, many in one file.

use std::ops::Range;

use crate::places::Place;

/// A piece of a file and what a fault has in its stead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub with: String,
}

impl Edit {
    pub fn apply(&self, text: &str) -> String {
        [&text[..self.range.start], &self.with, &text[self.range.end..]].concat()
    }
}

/// A fault that is there if its number is planted.
#[derive(Clone, Debug)]
pub struct Switch {
    pub number: usize,
    pub place: Place,
    pub edit: Edit,
}

/// A file with switches, and for each where its whole `if` and its own branch are.
pub struct Switched {
    pub text: String,
    spans: Vec<(usize, Range<usize>, Range<usize>)>,
}

impl Switched {
    /// The switch that a compiler's complaint about `range` is likely to mean: the one whose branch it is in, or else the
    /// innermost around it.
    pub fn blame(&self, range: &Range<usize>) -> Option<usize> {
        let within = |outer: &Range<usize>| outer.start <= range.start && range.end <= outer.end;
        let branch = self.spans.iter().filter(|(_, _, branch)| within(branch)).min_by_key(|(_, _, b)| b.len());
        let around = self.spans.iter().filter(|(_, whole, _)| within(whole) && whole != range);
        let around = around.min_by_key(|(_, whole, _)| whole.len());
        let same = || self.spans.iter().find(|(_, whole, _)| whole == range);
        branch.or(around).or_else(same).map(|(number, ..)| *number)
    }
}

/// `text` with the switches.
pub fn switched(text: &str, mut switches: Vec<Switch>) -> Switched {
    switches.sort_by_key(|s| (s.place.range.start, std::cmp::Reverse(s.place.range.end), s.number));
    let mut file = Switched { text: String::new(), spans: Vec::new() };
    write(&mut file, text, 0..text.len(), &switches);
    file
}

/// Appends a range of `text` with the switches in it, which are sorted, the outer ones first.
fn write(file: &mut Switched, text: &str, range: Range<usize>, switches: &[Switch]) {
    let (mut from, mut rest) = (range.start, switches);
    while let Some(first) = rest.first() {
        let place = &first.place;
        let group = rest.iter().take_while(|s| s.place.range == place.range).count();
        let inside = rest.iter().take_while(|s| s.place.range.start < place.range.end).count();
        file.text += &text[from..place.range.start];
        let start = file.text.len();
        file.text += if place.value { "(" } else { "" };
        let mut branches = Vec::new();
        for Switch { number, edit, .. } in &rest[..group] {
            file.text += &format!("if crate::planted({number}) {{ ");
            let start = file.text.len();
            let (before, after) = (place.range.start..edit.range.start, edit.range.end..place.range.end);
            file.text += &[&text[before], &edit.with, &text[after]].concat();
            branches.push((*number, start..file.text.len()));
            file.text += "\n} else ";
        }
        file.text += "{ ";
        write(file, text, place.range.clone(), &rest[group..inside]);
        // On a line of its own, since the last one may end in a comment.
        file.text += if place.value { "\n})" } else { "\n}" };
        let whole = start..file.text.len();
        file.spans.extend(branches.into_iter().map(|(number, branch)| (number, whole.clone(), branch)));
        (from, rest) = (place.range.end, &rest[inside..]);
    }
    file.text += &text[from..range.end];
}

#[cfg(test)]
mod tests {
    use super::{Edit, Switch, Switched, switched};
    use crate::places::places;

    /// `text` with each `(old, new)` switched at its place of that level.
    fn with(text: &str, faults: &[(&str, &str, usize)]) -> Switched {
        let switch = |(at, (old, new, level)): (usize, &(&str, &str, usize))| {
            let start = text.find(old).unwrap();
            let range = start..start + old.len();
            let place = places(text, &range).unwrap()[*level].clone();
            Switch { number: at + 1, place, edit: Edit { range, with: (*new).to_string() } }
        };
        switched(text, faults.iter().enumerate().map(switch).collect())
    }

    /// With one space wherever there is any.
    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_operator() {
        let file = with("fn f() -> u32 { g(a + 1) }", &[("+", "-", 0)]);
        let want = "fn f() -> u32 { g((if crate::planted(1) { a - 1 } else { a + 1 })) }";
        assert_eq!(squeezed(&file.text), want);
    }

    /// The outer fault's branch is as the inner one had never been.
    #[test]
    fn nested_and_beside_each_other() {
        let file = with("fn f() { g(a + 1); }", &[("g(", "h(", 0), ("+", "-", 0), ("1", "2", 0)]);
        let want = "fn f() { if crate::planted(1) { h(a + 1); } else { g((if crate::planted(2) { a - 1 } else { a + \
                    (if crate::planted(3) { 2 } else { 1 }) })); } }";
        assert_eq!(squeezed(&file.text), want);
        let file = with("fn f() { a + 1; }", &[("+", "-", 0), ("+", "*", 0)]);
        let want = "fn f() { if crate::planted(1) { a - 1; } else if crate::planted(2) { a * 1; } else { a + 1; } }";
        assert_eq!(squeezed(&file.text), want);
    }

    #[test]
    fn blame_is_on_the_innermost() {
        let file = with("fn f() { g(a + 1); }", &[("g(", "h(", 0), ("+", "-", 0)]);
        let at = |text: &str| {
            let start = file.text.find(text).unwrap();
            file.blame(&(start..start + text.len()))
        };
        assert_eq!([at("h"), at("a - 1"), at("g"), at("fn")], [Some(1), Some(2), Some(1), None]);
    }
}
