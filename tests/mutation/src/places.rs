//! Where in a Rust file a switch can stand: expressions, statements and blocks that enclose a piece of text.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt};

/// A piece of text that can be one branch of an `if`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub range: Range<usize>,
    /// Whether the `if` needs parentheses around it.
    pub value: bool,
}

/// The places around `piece`, the innermost first. There are none in constants, types, patterns and attributes.
///
/// # Errors
/// If `text` is no Rust.
pub fn places(text: &str, piece: &Range<usize>) -> Result<Vec<Place>, String> {
    let file = syn::parse_file(text).map_err(|e| e.to_string())?;
    let mut finder = Finder { piece, found: Vec::new() };
    finder.visit_file(&file);
    finder.found.reverse();
    finder.found.dedup_by(|a, b| a.range == b.range);
    Ok(finder.found)
}

struct Finder<'a> {
    piece: &'a Range<usize>,
    found: Vec<Place>,
}

impl Finder<'_> {
    fn encloses(&self, range: &Range<usize>) -> bool {
        range.start <= self.piece.start && self.piece.end <= range.end
    }

    fn place(&mut self, range: Range<usize>, value: bool) {
        if self.encloses(&range) {
            self.found.push(Place { range, value });
        }
    }
}

/// Whether it may be assigned to or borrowed where it stands: a branch would be a copy of it. Or whether it binds names.
fn stays(expr: &Expr) -> bool {
    match expr {
        Expr::Path(_) | Expr::Field(_) | Expr::Index(_) | Expr::Let(_) | Expr::Verbatim(_) | Expr::Infer(_) => true,
        Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Deref(_)),
        Expr::Paren(paren) => stays(&paren.expr),
        expr => binds(expr),
    }
}

/// Whether names that it binds are used outside: `a && let Some(b) = c`.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr(&mut self, expr: &'ast Expr) {
        let range = expr.span().byte_range();
        if !self.encloses(&range) {
            return;
        }
        if !stays(expr) {
            self.place(range, true);
        }
        visit::visit_expr(self, expr);
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let range = block.span().byte_range();
        let (Some(first), Some(end)) = (block.stmts.first(), block.stmts.last()) else { return };
        if !self.encloses(&range) {
            return;
        }
        self.place(first.span().byte_range().start..end.span().byte_range().end, false);
        let last = block.stmts.len() - 1;
        for (at, statement) in block.stmts.iter().enumerate() {
            match statement {
                Stmt::Expr(expr, semicolon) if semicolon.is_some() || at < last => {
                    self.place(statement.span().byte_range(), false);
                    visit::visit_expr(self, expr);
                }
                Stmt::Macro(_) => self.place(statement.span().byte_range(), false),
                statement => self.visit_stmt(statement),
            }
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.sig.constness.is_none() {
            self.visit_block(&item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if item.sig.constness.is_none() {
            self.visit_block(&item.block);
        }
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    // What is computed when the engine is compiled cannot ask which fault is there.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_angle_bracketed_generic_arguments(&mut self, _: &'ast syn::AngleBracketedGenericArguments) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::places;

    /// The texts of the places around the one `piece` in `text`.
    fn around<'t>(text: &'t str, piece: &str) -> Vec<&'t str> {
        let start = text.find(piece).unwrap();
        let found = places(text, &(start..start + piece.len())).unwrap();
        found.into_iter().map(|place| text[place.range].trim()).collect()
    }

    #[test]
    fn from_the_inside_out() {
        let text = "fn f(a: u32) -> u32 { let b = g(a + 1); b }";
        assert_eq!(around(text, "+"), ["a + 1", "g(a + 1)", "let b = g(a + 1); b"]);
        let text = "fn f() { for i in 0..n { x[i + 1] = 2; y(); } z() }";
        let statement = "x[i + 1] = 2;";
        let lines = [statement, "x[i + 1] = 2; y();", "for i in 0..n { x[i + 1] = 2; y(); }"];
        assert_eq!(around(text, "2")[1..4], lines);
        assert_eq!(around("fn f() -> u32 { 1 }", "1"), ["1"]);
        assert_eq!(around(text, "i + 1")[0], "i + 1");
    }

    /// A branch would be a copy of what is assigned to.
    #[test]
    fn what_is_assigned_to_stays() {
        assert_eq!(around("fn f() { self.a.b = 1; }", "b"), ["self.a.b = 1;"]);
        assert_eq!(around("fn f() { self.a.push(1); g() }", "a")[0], "self.a.push(1);");
        assert_eq!(around("fn f() { if x && let Some(y) = z { y } }", "&&")[0].split(' ').next(), Some("if"));
    }

    #[test]
    fn constants_cannot_be_switched() {
        for text in ["const A: u32 = 1 + 2;", "const fn f() -> u32 { 1 + 2 }", "fn f(x: [u8; 1 + 2]) {}"] {
            assert_eq!(around(text, "+"), [""; 0], "{text}");
        }
        assert_eq!(around("fn f() { [0; 1 + 2] }", "+"), ["[0; 1 + 2]"]);
        assert_eq!(around("fn f() { match x { 1..=2 => 3 } }", "2")[0], "match x { 1..=2 => 3 }");
    }
}
