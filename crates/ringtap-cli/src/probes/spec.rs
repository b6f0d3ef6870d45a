//! What `-p` and `-u` say.

use super::elf::{self, Binary};
use super::{Probe, usdt};
use anyhow::{Context, Result, bail};
use ringtap::tracefs::{EventName, Place};
use std::str::FromStr;

/// `BINARY:FUNCTION[+OFFSET][%return] [ARGS]`, or an address in FUNCTION's stead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FunctionSpec {
    binary: String,
    function: String,
    offset: u64,
    is_return: bool,
    /// As the kernel takes them; empty where nothing was said.
    fetch: String,
}

/// `BINARY:PROVIDER:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UsdtSpec {
    binary: String,
    provider: String,
    name: String,
}

impl FromStr for FunctionSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, fetch) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (binary, function) = target
            .rsplit_once(':')
            .filter(|(binary, function)| !binary.is_empty() && !function.is_empty())
            .ok_or("give BINARY:FUNCTION, such as libc.so.6:malloc or ./program:main%return")?;
        let (function, is_return) = match function.split_once('%') {
            Some((function, "return")) => (function, true),
            Some((_, other)) => {
                return Err(format!("'%{other}' is not known; give FUNCTION or FUNCTION%return"));
            }
            None => (function, false),
        };
        let (function, offset) = match function.split_once('+') {
            Some((_, _)) if is_return => {
                return Err("a function returns as a whole; leave out the offset".into());
            }
            Some((function, offset)) => {
                let number = number(offset).ok_or_else(|| format!("the offset '{offset}' is no number"))?;
                (function, number)
            }
            None => (function, 0),
        };
        if function.is_empty() {
            return Err("the function has no name".into());
        }
        let [binary, function] = [binary, function].map(str::to_owned);
        Ok(Self { binary, function, offset, is_return, fetch: fetch.trim().to_owned() })
    }
}

impl FromStr for UsdtSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, ':').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(provider), Some(binary))
                if ![&name, &provider, &binary].iter().any(|part| part.is_empty()) =>
            {
                Ok(Self { binary, provider, name })
            }
            _ => Err("give BINARY:PROVIDER:NAME, such as python3:python:gc__start".into()),
        }
    }
}

/// A number as C writes it: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl FunctionSpec {
    /// Finds where the probe goes.
    pub(super) fn plan(&self) -> Result<Probe> {
        let binary = Binary::open(&self.binary)?;
        let address = match number(&self.function).filter(|_| self.function.starts_with("0x")) {
            Some(address) => address,
            None => binary.function(&self.function)?,
        };
        let address = address.checked_add(self.offset).context("the offset is too large")?;
        let Some(offset) = binary.code_offset(address) else {
            bail!("{}+{:#x} is no code of {}", self.function, self.offset, binary.path().display());
        };
        let name = match self.is_return {
            true => format!("{}__return", self.function),
            false => self.function.clone(),
        };
        let fetch = match (self.is_return, self.fetch.as_str()) {
            (true, "") => "ret=$retval:x64".to_owned(),
            (_, fetch) => fetch.to_owned(),
        };
        let place =
            Place { path: binary.path().to_owned(), offset, counter: None, is_return: self.is_return };
        let shown = EventName { system: binary.short_name(), name };
        Ok(Probe { shown, place, fetch, left_out: Vec::new() })
    }
}

impl UsdtSpec {
    /// Finds where the probes go: one may stand in several places.
    pub(super) fn plan(&self) -> Result<Vec<Probe>> {
        let binary = Binary::open(&self.binary)?;
        let notes = binary.usdt()?;
        let is_it = |note: &&elf::Note| note.provider == self.provider && note.name == self.name;
        let found: Vec<_> = notes.iter().filter(is_it).collect();
        if found.is_empty() {
            bail!("{}", self.unknown(&binary, &notes));
        }
        found.into_iter().map(|note| self.probe(&binary, note)).collect()
    }

    fn probe(&self, binary: &Binary, note: &elf::Note) -> Result<Probe> {
        let path = binary.path().to_owned();
        let damaged =
            || format!("the probe {}:{} lies outside of {}", self.provider, self.name, path.display());
        let offset = binary.code_offset(note.address).with_context(damaged)?;
        let counter = match note.semaphore {
            0 => None,
            address => Some(binary.data_offset(address).with_context(damaged)?),
        };
        let (fetch, left_out) = usdt::fetch(&note.arguments);
        let shown = EventName { system: elf::plain(&self.provider), name: self.name.clone() };
        Ok(Probe { shown, place: Place { path, offset, counter, is_return: false }, fetch, left_out })
    }

    fn unknown(&self, binary: &Binary, notes: &[elf::Note]) -> String {
        let path = binary.path().display();
        if notes.is_empty() {
            return format!("{path} has no USDT probes; -p probes its functions");
        }
        let wanted = format!("{}:{}", self.provider, self.name);
        let names = notes.iter().map(|note| format!("{}:{}", note.provider, note.name));
        format!("{path} has no USDT probe '{wanted}'; {}", elf::near(&wanted, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_with_returns_offsets_and_arguments() {
        let spec = |binary: &str, function: &str, offset, is_return, fetch: &str| FunctionSpec {
            binary: binary.into(),
            function: function.into(),
            offset,
            is_return,
            fetch: fetch.into(),
        };
        let parsed = |text: &str| text.parse::<FunctionSpec>().unwrap();
        assert_eq!(parsed("libc.so.6:malloc"), spec("libc.so.6", "malloc", 0, false, ""));
        assert_eq!(parsed("./a:b:main%return"), spec("./a:b", "main", 0, true, ""));
        assert_eq!(parsed("a:f+0x10 x=%di:u64 y=%si"), spec("a", "f", 16, false, "x=%di:u64 y=%si"));
        assert_eq!(parsed("a:0x1139"), spec("a", "0x1139", 0, false, ""));
        for wrong in ["", "a", "a:", ":f", "a:f%exit", "a:f+1%return", "a:f+x", "a:%return"] {
            assert!(wrong.parse::<FunctionSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn usdt_probes_have_three_names() {
        let spec: UsdtSpec = "./dir:1/app:shop:sold".parse().unwrap();
        assert_eq!((&*spec.binary, &*spec.provider, &*spec.name), ("./dir:1/app", "shop", "sold"));
        for wrong in ["", "a:b", "a::c", ":b:c", "a:b:"] {
            assert!(wrong.parse::<UsdtSpec>().is_err(), "{wrong}");
        }
    }
}
