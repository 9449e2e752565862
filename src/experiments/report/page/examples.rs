//! Images under attack, with the network's answers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};

use crate::base::error::Result;
use crate::experiments::report::grid::{Example, Grid, Pictures};

/// Test images and what an attack made of them. Pixels are 0 to 1.
pub struct Examples {
    /// The attack: `pgd-40`.
    pub attack: String,
    /// Its radius.
    pub eps: f32,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// The images.
    pub images: Vec<Pictured>,
}

/// One image and what the network makes of it. Pixels are `c × h × w`; classes by name.
pub struct Pictured {
    /// The clean image.
    pub clean: Vec<f32>,
    /// The same under attack.
    pub attacked: Vec<f32>,
    /// Class it belongs to.
    pub label: String,
    /// Class predicted for the clean image.
    pub natural: String,
    /// Class predicted for the attacked image.
    pub adversarial: String,
}

impl Pictured {
    fn example(&self) -> Example<'_> {
        Example {
            clean: &self.clean,
            attacked: &self.attacked,
            label: &self.label,
            natural: &self.natural,
            adversarial: &self.adversarial,
        }
    }
}

impl Examples {
    /// A table: an image a column.
    ///
    /// # Errors
    /// As [`Grid::pictures`].
    pub fn markup(&self) -> Result<Markup> {
        let Examples { attack, eps, shape, images } = self;
        let examples: Vec<Example> = images.iter().map(Pictured::example).collect();
        let pictures = Grid { shape: *shape, eps: *eps, examples: &examples }.pictures()?;
        let row = |name: &str, of: fn(&Pictures) -> &Vec<u8>| {
            let cell = |(i, picture): (usize, &Pictures)| {
                let source = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(of(picture)));
                html! { td { img src=(source) width=(shape[2]) height=(shape[1]) alt={ (name) ", image " (i + 1) }; } }
            };
            html! { tr { th scope="row" { (name) } @for item in pictures.iter().enumerate() { (cell(item)) } } }
        };
        Ok(html! {
            h3 { "Images under attack" }
            p {
                "Test images under " (attack) " with eps " (format!("{eps:.4}"))
                ". Perturbation: grey is 0, black −eps, white +eps. An image that is wrong without an attack is not attacked."
            }
            div.scroll tabindex="0" role="region" aria-label="Images under attack" {
                table.images {
                    tbody {
                        (row("clean", |p| &p.clean))
                        (row("perturbation", |p| &p.perturbation))
                        (row("adversarial", |p| &p.attacked))
                        (answers("true class", images, |image| &image.label))
                        (answers("answer, clean", images, |image| &image.natural))
                        (answers("answer, attacked", images, |image| &image.adversarial))
                    }
                }
            }
        })
    }
}

/// A class for each image; a wrong one is marked.
fn answers(name: &str, images: &[Pictured], of: fn(&Pictured) -> &String) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            @for image in images {
                td {
                    @let class = of(image);
                    @if *class == image.label { (class) } @else { strong.wrong { (class) " ✗" } }
                }
            }
        }
    }
}
