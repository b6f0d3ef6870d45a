//! The file's compressions. Each piece is compressed by itself and states its length beforehand.

use std::io::{self, Read};

/// How a file's sections and chunks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Zstandard.
    Zstd,
    /// Zlib (deflate).
    Zlib,
}

impl Compression {
    /// The compression of this name in a file.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" | "" => Some(Self::None),
            "zstd" => Some(Self::Zstd),
            "zlib" => Some(Self::Zlib),
            _ => None,
        }
    }

    /// Its name in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Zlib => "zlib",
        }
    }

    /// Appends the `len` bytes that `packed` becomes. Never takes more memory than that, whatever `packed` says.
    ///
    /// # Errors
    /// It is no piece of that length, or this program was built without the compression.
    pub fn unpack(self, packed: &[u8], len: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        // One byte more than there should be tells that there is more.
        let limit = len.saturating_add(1);
        match self {
            Self::None => packed.take(limit).read_to_end(out)?,
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::stream::read::Decoder::new(packed)?.take(limit).read_to_end(out)?,
            #[cfg(feature = "zlib")]
            Self::Zlib => flate2::read::ZlibDecoder::new(packed).take(limit).read_to_end(out)?,
            #[cfg(not(all(feature = "zstd", feature = "zlib")))]
            other => {
                return Err(io::Error::other(format!("this program was built without {}", other.name())));
            }
        };
        let unpacked = out.len().saturating_sub(before);
        if u64::try_from(unpacked).ok() == Some(len) {
            return Ok(());
        }
        out.truncate(before);
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes were stated, it has {unpacked}")))
    }

    /// Appends what `plain` becomes.
    ///
    /// # Errors
    /// This program was built without the compression, or there is no memory for it.
    pub fn pack(self, plain: &[u8], level: i32, out: &mut Vec<u8>) -> io::Result<()> {
        let _ = level;
        match self {
            Self::None => out.extend_from_slice(plain),
            #[cfg(feature = "zstd")]
            Self::Zstd => {
                out.extend_from_slice(&zstd::bulk::compress(plain, level)?);
            }
            #[cfg(feature = "zlib")]
            Self::Zlib => {
                let level = flate2::Compression::new(u32::try_from(level.clamp(0, 9)).unwrap_or(6));
                let mut encoder = flate2::write::ZlibEncoder::new(&mut *out, level);
                io::Write::write_all(&mut encoder, plain)?;
                encoder.finish()?;
            }
            #[cfg(not(all(feature = "zstd", feature = "zlib")))]
            other => {
                return Err(io::Error::other(format!("this program was built without {}", other.name())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_no_more_than_stated() {
        let plain: Vec<u8> = (0..10_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let len = u64::try_from(plain.len()).unwrap();
        for compression in [Compression::None, Compression::Zstd, Compression::Zlib] {
            assert_eq!(Compression::from_name(compression.name()), Some(compression));
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            compression.pack(&plain, 3, &mut packed).unwrap();
            compression.unpack(&packed, len, &mut back).unwrap();
            assert_eq!(back, plain);
            // One that grows beyond what it states is refused.
            assert!(compression.unpack(&packed, 100, &mut back).is_err());
            assert!(compression.unpack(&packed, len + 1, &mut back).is_err());
            assert_eq!(back.len(), plain.len());
            assert!(compression.unpack(&packed[..packed.len() / 2], len, &mut back).is_err());
        }
    }
}
