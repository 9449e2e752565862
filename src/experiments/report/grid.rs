//! Adversarial examples as a picture: for each image the clean pixels, the perturbation and the attacked pixels, and
//! below them the classes.

use std::convert::Infallible;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_7X13;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};

use super::paint::{INK, MUTED, VERMILION};
use crate::base::error::{Error, Result};

/// Images side by side.
const COLUMNS: usize = 8;
/// Images of one picture: two rows fit on a screen.
pub const PER_PAGE: usize = 2 * COLUMNS;

const MARGIN: usize = 12;
/// Width of the names of the rows.
const CAPTION_WIDTH: usize = 100;
/// Between two images.
const GAP: usize = 6;
/// From one line of text to the next.
const LEADING: usize = 15;
/// Side of an image, about: small images are enlarged to it by a whole factor.
const SIDE: usize = 112;

/// One image and what a network makes of it. Pixels are `c × h × w`, 0 to 1; classes by name.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// The clean image.
    pub clean: &'a [f32],
    /// The same under attack.
    pub attacked: &'a [f32],
    /// Class it belongs to.
    pub label: &'a str,
    /// Class predicted for the clean image.
    pub natural: &'a str,
    /// Class predicted for the attacked image.
    pub adversarial: &'a str,
}

/// Up to [`PER_PAGE`] images on one page.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// Channels, height, width of the images: one channel is grey, three are RGB.
    pub shape: [usize; 3],
    /// Radius of the attack, which scales the perturbation.
    pub eps: f32,
    /// In reading order.
    pub examples: &'a [Example<'a>],
}

/// The three pictures of an example as PNG files, a pixel of the image each.
pub struct Pictures {
    /// The clean image.
    pub clean: Vec<u8>,
    /// What the attack adds: grey is 0, black -eps, white +eps.
    pub perturbation: Vec<u8>,
    /// The image under attack.
    pub attacked: Vec<u8>,
}

impl Grid<'_> {
    /// The pictures of each example by themselves, without text.
    ///
    /// # Errors
    /// As [`Grid::png`].
    pub fn pictures(&self) -> Result<Vec<Pictures>> {
        self.check()?;
        let encode = |values: &[f32]| {
            let mut canvas = Canvas::new((self.shape[2], self.shape[1]));
            self.draw_image(&mut canvas, (0, 0), 1, values);
            canvas.encode()
        };
        let pictures = |example: &Example| {
            let [clean, perturbation, attacked] = &self.values(example);
            Ok(Pictures { clean: encode(clean)?, perturbation: encode(perturbation)?, attacked: encode(attacked)? })
        };
        self.examples.iter().map(pictures).collect()
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`Error::Shape`] if an example has not the shape's pixels, [`Error::Failed`] if the encoder refuses.
    pub fn png(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut canvas = Canvas::new(self.size());
        let header =
            format!("perturbation: grey is 0, black -{0:.4}, white +{0:.4}; classes in colour are wrong", self.eps);
        canvas.text((MARGIN, MARGIN), Alignment::Left, &header, INK);
        for (i, example) in self.examples.iter().enumerate() {
            let (row, column) = (i / COLUMNS, i % COLUMNS);
            let top = MARGIN + 2 * LEADING + row * self.row_height();
            if column == 0 {
                self.draw_captions(&mut canvas, top);
            }
            self.draw_example(&mut canvas, example, (self.left(column), top));
        }
        canvas.encode()
    }

    fn check(&self) -> Result<()> {
        let [c, h, w] = self.shape;
        let fits = |example: &Example| example.clean.len() == c * h * w && example.attacked.len() == c * h * w;
        if matches!(c, 1 | 3) && h * w > 0 && self.examples.len() <= PER_PAGE && self.examples.iter().all(fits) {
            return Ok(());
        }
        Err(Error::Shape {
            op: "Grid::png",
            expected: format!("at most {PER_PAGE} pairs of images with 1 or 3 channels, all of one shape"),
            got: format!("{} pairs, shape {:?}", self.examples.len(), self.shape),
        })
    }

    /// Pixels of the picture for one of an image.
    fn scale(&self) -> usize {
        (SIDE / self.shape[1].max(self.shape[2])).max(1)
    }

    /// Height and width of an image in the picture.
    fn example_size(&self) -> [usize; 2] {
        [self.shape[1] * self.scale(), self.shape[2] * self.scale()]
    }

    fn left(&self, column: usize) -> usize {
        MARGIN + CAPTION_WIDTH + column * (self.example_size()[1] + GAP)
    }

    fn row_height(&self) -> usize {
        3 * (self.example_size()[0] + GAP) + 4 * LEADING
    }

    /// Width and height of the picture.
    fn size(&self) -> (usize, usize) {
        let rows = self.examples.len().div_ceil(COLUMNS);
        (self.left(COLUMNS) - GAP + MARGIN, 2 * MARGIN + 2 * LEADING + rows * self.row_height() - LEADING)
    }

    fn draw_captions(&self, canvas: &mut Canvas, top: usize) {
        let step = self.example_size()[0] + GAP;
        for (i, name) in ["clean", "perturbation", "adversarial"].into_iter().enumerate() {
            let middle = top + i * step + self.example_size()[0] / 2 - LEADING / 2;
            canvas.text((MARGIN, middle), Alignment::Left, name, MUTED);
        }
        for (i, name) in ["true class", "clean as", "attacked as"].into_iter().enumerate() {
            canvas.text((MARGIN, top + 3 * step + i * LEADING), Alignment::Left, name, MUTED);
        }
    }

    fn draw_example(&self, canvas: &mut Canvas, example: &Example<'_>, (x, y): (usize, usize)) {
        let [height, width] = self.example_size();
        let step = height + GAP;
        for (i, values) in self.values(example).iter().enumerate() {
            self.draw_image(canvas, (x, y + i * step), self.scale(), values);
        }
        let classes = [example.label, example.natural, example.adversarial];
        for (i, class) in classes.into_iter().enumerate() {
            let color = if class == example.label { INK } else { VERMILION };
            canvas.text((x + width / 2, y + 3 * step + i * LEADING), Alignment::Center, class, color);
        }
    }

    /// Clean image, perturbation and attacked image, 0 to 1.
    fn values(&self, example: &Example<'_>) -> [Vec<f32>; 3] {
        // A difference of at most eps stays within 0 to 1.
        let shift = |(clean, attacked): (&f32, &f32)| if self.eps > 0.0 { (attacked - clean) / self.eps } else { 0.0 };
        let shifts = example.clean.iter().zip(example.attacked).map(shift);
        [example.clean.to_vec(), shifts.map(|shift| 0.5 + 0.5 * shift).collect(), example.attacked.to_vec()]
    }

    /// Draws an image of `values`, 0 to 1, with its upper left corner at (`x`, `y`) and `scale` pixels for one of its own.
    fn draw_image(&self, canvas: &mut Canvas, (x, y): (usize, usize), scale: usize, values: &[f32]) {
        let [c, h, w] = self.shape;
        for pixel in 0..h * w {
            // The cast maps what is beyond the ends to them.
            let level = |channel: usize| (255.0 * values[channel * h * w + pixel]).round() as u8;
            let color = if c == 3 { [level(0), level(1), level(2)] } else { [level(0); 3] };
            canvas.fill((x + pixel % w * scale, y + pixel / w * scale), scale, color);
        }
    }
}

/// A white page of RGB pixels.
struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    fn new((width, height): (usize, usize)) -> Self {
        Canvas { width, height, rgb: vec![255; 3 * width * height] }
    }

    fn fill(&mut self, (x, y): (usize, usize), side: usize, color: [u8; 3]) {
        let area = Rectangle::new(Point::new(x as i32, y as i32), Size::new_equal(side as u32));
        let [r, g, b] = color;
        let Ok(()) = self.fill_solid(&area, Rgb888::new(r, g, b));
    }

    /// Text below `at`.
    fn text(&mut self, at: (usize, usize), alignment: Alignment, text: &str, color: plotters::style::RGBColor) {
        let font = MonoTextStyle::new(&FONT_7X13, Rgb888::new(color.0, color.1, color.2));
        let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
        let Ok(_) = Text::with_text_style(text, Point::new(at.0 as i32, at.1 as i32), font, style).draw(self);
    }

    /// The page as a PNG file.
    fn encode(&self) -> Result<Vec<u8>> {
        self.png().map_err(|e| Error::Failed(format!("cannot encode a picture: {e}")))
    }

    fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            // Pixels beyond the page are not drawn.
            if (0..self.width as i32).contains(&x) && (0..self.height as i32).contains(&y) {
                let at = 3 * (y as usize * self.width + x as usize);
                self.rgb[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    /// Width, height and RGB bytes of a PNG file.
    fn decode(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        (info.width as usize, info.height as usize, rgb)
    }

    fn example<'a>(clean: &'a [f32], attacked: &'a [f32], adversarial: &'a str) -> Example<'a> {
        Example { clean, attacked, label: "cat", natural: "cat", adversarial }
    }

    #[test]
    fn pixels_are_where_they_belong() {
        // Two pixels of three channels: red and dark blue; the first loses all its red, the second gains half of eps.
        let clean = [1.0, 0.0, 0.0, 0.0, 0.0, 0.2];
        let attacked = [0.6, 0.0, 0.0, 0.0, 0.0, 0.4];
        let grid = Grid { shape: [3, 1, 2], eps: 0.4, examples: &[example(&clean, &attacked, "dog")] };
        let (width, height, rgb) = decode(&grid.png().unwrap());
        assert_eq!((width, height), grid.size());
        let scale = SIDE / 2;
        let at = |row: usize, pixel: usize| {
            let (x, y) = (grid.left(0) + pixel * scale + 1, MARGIN + 2 * LEADING + row * (scale + GAP) + scale - 1);
            rgb[3 * (y * width + x)..][..3].to_vec()
        };
        assert_eq!([at(0, 0), at(0, 1)], [vec![255, 0, 0], vec![0, 0, 51]]);
        assert_eq!([at(1, 0), at(1, 1)], [vec![0, 128, 128], vec![128, 128, 191]]);
        assert_eq!([at(2, 0), at(2, 1)], [vec![153, 0, 0], vec![0, 0, 102]]);
    }

    /// In reading order: eight side by side, then the next row.
    #[test]
    fn examples_are_in_reading_order() {
        let pixels: Vec<[f32; 2]> = (0..PER_PAGE).map(|i| [i as f32 / 20.0, 0.0]).collect();
        let examples: Vec<Example> = pixels.iter().map(|clean| example(clean, clean, "cat")).collect();
        let grid = Grid { shape: [1, 1, 2], eps: 0.4, examples: &examples };
        let (width, _, rgb) = decode(&grid.png().unwrap());
        for (i, [value, _]) in pixels.iter().enumerate() {
            let (x, y) = (grid.left(i % 8) + 1, MARGIN + 2 * LEADING + i / 8 * grid.row_height() + 1);
            assert_eq!(rgb[3 * (y * width + x)..][..3], [(255.0 * value).round() as u8; 3], "example {i}");
        }
    }

    /// One pixel each, the same values as in the grid.
    #[test]
    fn the_pictures_of_an_example_have_its_pixels() {
        let clean = [1.0, 0.0, 0.0, 0.0, 0.0, 0.2];
        let attacked = [0.6, 0.0, 0.0, 0.0, 0.0, 0.4];
        let examples = [example(&clean, &attacked, "dog"), example(&attacked, &attacked, "cat")];
        let pictures = Grid { shape: [3, 1, 2], eps: 0.4, examples: &examples }.pictures().unwrap();
        let pixels = |png: &[u8]| {
            let (width, height, rgb) = decode(png);
            assert_eq!((width, height), (2, 1));
            rgb
        };
        let [first, second] = &pictures[..] else { panic!("{} examples", pictures.len()) };
        assert_eq!(pixels(&first.clean), [255, 0, 0, 0, 0, 51]);
        assert_eq!(pixels(&first.perturbation), [0, 128, 128, 128, 128, 191]);
        assert_eq!(pixels(&first.attacked), [153, 0, 0, 0, 0, 102]);
        assert_eq!(pixels(&second.perturbation), [128; 6]);
    }

    #[test]
    fn only_wrong_classes_are_in_colour() {
        let grey = [0.5];
        let colored = |adversarial| {
            let examples = [example(&grey, &grey, adversarial)];
            let (_, _, rgb) = decode(&Grid { shape: [1, 1, 1], eps: 0.1, examples: &examples }.png().unwrap());
            let wrong = [VERMILION.0, VERMILION.1, VERMILION.2];
            rgb.chunks_exact(3).filter(|pixel| *pixel == wrong).count()
        };
        assert_eq!(colored("cat"), 0);
        assert!(colored("dog") > 20, "{}", colored("dog"));
    }

    #[test]
    fn pixels_beyond_the_page_are_not_drawn() {
        let mut canvas = Canvas::new((4, 3));
        let black = Rgb888::new(0, 0, 0);
        let beyond = [(-1, 1), (4, 1), (1, -1), (1, 3), (-1, -1), (4, 3)];
        let Ok(()) = canvas.draw_iter(beyond.map(|(x, y)| Pixel(Point::new(x, y), black)));
        assert!(canvas.rgb.iter().all(|value| *value == 255));
        let Ok(()) = canvas.draw_iter([Pixel(Point::new(3, 2), black)]);
        assert_eq!(canvas.rgb[3 * 11..], [0; 3], "the last pixel of the page");
    }

    #[test]
    fn a_page_grows_by_rows() {
        let grey = [0.5; 784];
        let size = |n: usize| {
            let grid = Grid { shape: [1, 28, 28], eps: 0.0, examples: &vec![example(&grey, &grey, "cat"); n] };
            grid.png().map(|png| (decode(&png).0, decode(&png).1))
        };
        let (one, row, page) = (size(1).unwrap(), size(COLUMNS).unwrap(), size(PER_PAGE).unwrap());
        assert_eq!(one, row);
        assert_eq!((page.0, page.1 - row.1), (row.0, 3 * (112 + GAP) + 4 * LEADING));
        assert!(matches!(size(PER_PAGE + 1), Err(Error::Shape { .. })));
    }

    #[test]
    fn images_of_another_shape_are_refused() {
        let (right, wrong) = ([0.5; 4], [0.5; 3]);
        let examples = [example(&right, &wrong, "cat")];
        let refused =
            |shape, examples: &[Example]| matches!(Grid { shape, eps: 0.1, examples }.png(), Err(Error::Shape { .. }));
        assert!(refused([1, 2, 2], &examples));
        assert!(refused([2, 1, 2], &[example(&right, &right, "cat")]), "neither grey nor in colour");
        assert!(refused([1, 0, 4], &[]), "no pixels");
    }

    #[test]
    fn looks_as_it_should() {
        let pixels = |seed: usize| (0..48).map(|i| ((i * 7 + seed * 11) % 48) as f32 / 47.0).collect::<Vec<_>>();
        let images: Vec<[Vec<f32>; 2]> = (0..COLUMNS + 2).map(|i| [pixels(i), pixels(i + 1)]).collect();
        let examples: Vec<Example> = images.iter().map(|[clean, attacked]| example(clean, attacked, "dog")).collect();
        let png = Grid { shape: [3, 4, 4], eps: 0.25, examples: &examples }.png().unwrap();
        sample::assert_shows("grid.png", &png, decode);
    }
}
