//! What callsites are called in a trace: their names made legal, and what is printed of them.

use tracing_core::{Level, Metadata};

/// Longest name that a host takes, less the room for a suffix.
const LONGEST: usize = 48;

/// What an event or span is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The crate: what stands before the first `::` of the target.
    pub(crate) system: String,
    pub(crate) name: String,
    /// The name with its module before it, for when another callsite has that name.
    pub(crate) long_name: String,
    /// Where it stands in the source, such as `src/cart.rs:42`.
    pub(crate) place: String,
}

impl Names {
    pub(crate) fn of(metadata: &Metadata<'_>) -> Self {
        let target = metadata.target();
        let (krate, module) = target.split_once("::").unwrap_or((target, ""));
        let line = metadata.line().map(|line| format!(":{line}")).unwrap_or_default();
        let place = metadata.file().map(|file| format!("{}{line}", short_path(file))).unwrap_or_default();
        let given = metadata.name();
        let name = if target == "log" && given == "log event" {
            format!("log_{}", level(metadata.level()).to_ascii_lowercase())
        } else if metadata.is_event() && given.starts_with("event ") {
            // tracing's own name for an event without one: the place, with its whole path.
            let module = if module.is_empty() { metadata.file().map_or("event", stem) } else { module };
            format!("{module}{line}")
        } else {
            given.to_owned()
        };
        let long_name = legal(&if module.is_empty() { name.clone() } else { format!("{module}_{name}") });
        Self { system: legal(krate), name: legal(&name), long_name, place }
    }

    /// The names to try, in their order, where others are taken.
    pub(crate) fn candidates(&self, suffix: &str) -> impl Iterator<Item = String> {
        const TRIES: u32 = 64;
        let long = (self.long_name != self.name).then(|| format!("{}{suffix}", self.long_name));
        let first = [format!("{}{suffix}", self.name)];
        let numbered: Vec<String> = (2..TRIES).map(|n| format!("{}{suffix}_{n}", self.long_name)).collect();
        first.into_iter().chain(long).chain(numbered)
    }
}

/// The level as it is printed.
pub(crate) fn level(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        _ => "TRACE",
    }
}

/// A name of letters, digits and underscores, no digit first: what the kernel's tools can parse.
pub(crate) fn legal(name: &str) -> String {
    let mut legal = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        // `a::b` is `a_b`.
        if c != '_' || !legal.ends_with('_') || name.contains("__") {
            legal.push(c);
        }
    }
    if !legal.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        legal.insert(0, '_');
    }
    legal.truncate(LONGEST);
    legal
}

/// A field's name, legal and not yet taken.
pub(crate) fn field(name: &str, taken: &[&'static str]) -> String {
    let mut legal = legal(name);
    while legal.starts_with("common_") || taken.contains(&legal.as_str()) {
        legal.insert(0, '_');
    }
    legal
}

/// A path from its last `src` on.
fn short_path(path: &str) -> &str {
    match path.rfind("/src/") {
        Some(at) => &path[at + 1..],
        None => path.rsplit_once('/').map_or(path, |(_, file)| file),
    }
}

fn stem(path: &str) -> &str {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    file.strip_suffix(".rs").unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal() {
        for (name, expected) in [
            ("shop", "shop"),
            ("db::pool", "db_pool"),
            ("GET /cart", "GET_cart"),
            ("2nd", "_2nd"),
            ("", "_"),
            ("__private", "__private"),
            ("ärger", "_rger"),
            ("log.target", "log_target"),
        ] {
            assert_eq!(legal(name), expected, "{name:?}");
        }
        assert_eq!(legal(&"x".repeat(100)).len(), LONGEST);
    }

    #[test]
    fn fields_are_told_apart() {
        assert_eq!(field("span", &["span"]), "_span");
        assert_eq!(field("a.b", &["span", "a_b", "_a_b"]), "__a_b");
        assert_eq!(field("common_pid", &[]), "_common_pid");
    }

    #[test]
    fn places_are_short() {
        assert_eq!(short_path("/home/me/shop/src/cart/mod.rs"), "src/cart/mod.rs");
        assert_eq!(short_path("examples/shop.rs"), "shop.rs");
        assert_eq!(stem("src/cart.rs"), "cart");
    }
}
