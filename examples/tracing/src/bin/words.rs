//! A command-line tool: counts the words of files.
//!
//! `ringtap stream -- words FILE...` shows what it does while it does it; without a host it traces into memory of its own.

use std::collections::HashMap;
use std::path::Path;
use tracing::{info, instrument, warn};

fn main() -> anyhow::Result<()> {
    let _session = ringtap_tracing::init()?;
    let mut total: HashMap<String, u64> = HashMap::new();
    for path in std::env::args_os().skip(1) {
        match count(path.as_ref()) {
            Ok(words) => words.into_iter().for_each(|(word, n)| *total.entry(word).or_default() += n),
            Err(error) => warn!(path = %path.display(), %error, "skipped"),
        }
    }
    let mut total: Vec<(String, u64)> = total.into_iter().collect();
    total.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    total.iter().take(10).for_each(|(word, n)| println!("{n:8} {word}"));
    info!(words = total.len(), "done");
    Ok(())
}

#[instrument(err)]
fn count(path: &Path) -> std::io::Result<HashMap<String, u64>> {
    let text = std::fs::read_to_string(path)?;
    info!(bytes = text.len(), "read");
    let mut words = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    Ok(words)
}
