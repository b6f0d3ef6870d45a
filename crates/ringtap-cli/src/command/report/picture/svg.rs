//! Scalable vector graphics, as far as a time line needs them.

use std::fmt::Write as _;

/// Width of a character of the smaller font, about.
const CHARACTER: f64 = 6.2;

/// A picture as it grows.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
}

/// A rectangle's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Svg {
    /// A rectangle; what it is appears when pointed at, and stands in it where there is room.
    pub(super) fn rectangle(&mut self, place: Place, colour: &str, label: &str, about: &str) {
        let Place { x, y, width, height } = place;
        let _ = write!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{colour}\">\
             <title>{}</title></rect>",
            escaped(about)
        );
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred at most")]
        let room = ((width - 4.0) / CHARACTER).max(0.0) as usize;
        if room >= 3 && !label.is_empty() {
            let cut: String = label.chars().take(room).collect();
            let _ = write!(
                self.body,
                "<text x=\"{:.2}\" y=\"{:.1}\">{}</text>",
                x + 2.0,
                y + height - 4.0,
                escaped(&cut)
            );
        }
        self.body.push('\n');
    }

    /// A text that ends at x.
    pub(super) fn label(&mut self, x: f64, y: f64, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
            escaped(text)
        );
    }

    /// A text that begins at x.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str) {
        let _ = writeln!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text));
    }

    /// A line from top to bottom.
    pub(super) fn vertical(&mut self, x: f64, (top, bottom): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>"
        );
    }

    /// The whole file.
    pub(super) fn finish(self, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// A colour for a name or number: the same each time, light enough for black letters.
pub(super) fn colour(of: u64) -> String {
    let mixed = of.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!("hsl({},{}%,{}%)", mixed % 360, 50 + mixed / 360 % 30, 68 + mixed / 10_800 % 12)
}

/// A text that may stand between marks; what XML does not know is left out.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
