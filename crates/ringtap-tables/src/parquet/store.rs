//! Where files are made: a folder, or an object store.

use super::{Kind, WriteError};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[cfg(feature = "remote")]
use super::remote::{Remote, Upload};

/// Files that are open at a time in a folder. Each is a descriptor.
const MAX_OPEN: usize = 256;
/// Objects that are being uploaded at a time. Each holds up to 10 MiB.
#[cfg(feature = "remote")]
const MAX_UPLOADS: usize = 32;

/// A place for files.
#[derive(Debug)]
pub enum Store {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A folder of an object store.
    #[cfg(feature = "remote")]
    Remote(Remote),
}

/// A file of a [`Store`] while it is written. One that is not completed leaves nothing behind.
#[derive(Debug)]
pub enum StoreFile {
    /// Under another name until it is complete, which no reader of the folder takes for a part of the table.
    Local {
        /// The file.
        file: BufWriter<File>,
        /// The other name.
        part: Temporary,
        /// The name.
        path: PathBuf,
    },
    /// An object.
    #[cfg(feature = "remote")]
    Object(Upload),
}

/// A file that is removed where it still has this name.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    /// The folder of this name: a path, `file://` and a path, or, with the feature `remote`, `s3://BUCKET/FOLDER`, `gs://`
    /// or `az://`, with what the environment tells of keys.
    ///
    /// # Errors
    /// It is a place that this program does not know, or the environment lacks what is needed.
    pub fn open(place: &str) -> Result<Self, WriteError> {
        match place.split_once("://") {
            None => folder(place),
            Some(("file", path)) => folder(path),
            #[cfg(feature = "remote")]
            Some(_) => Ok(Self::Remote(Remote::open(place)?)),
            #[cfg(not(feature = "remote"))]
            Some(_) => Err(Kind::Place {
                place: place.to_owned(),
                why: "this program was built without object stores; build it with --features remote"
                    .to_owned(),
            }
            .into()),
        }
    }

    /// How many files may be open at a time.
    #[must_use]
    pub const fn max_open(&self) -> usize {
        match self {
            Self::Folder(_) => MAX_OPEN,
            #[cfg(feature = "remote")]
            Self::Remote(_) => MAX_UPLOADS,
        }
    }

    /// Makes the file of this name, whose parts slashes divide, and the folders that it is in.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(&self, name: &str) -> Result<StoreFile, WriteError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                local(&path).map_err(|source| Kind::Io { path: path.display().to_string(), source }.into())
            }
            #[cfg(feature = "remote")]
            Self::Remote(remote) => Ok(StoreFile::Object(remote.upload(name))),
        }
    }
}

/// The folder of this name, made where it is not there.
fn folder(path: &str) -> Result<Store, WriteError> {
    let failed = |source| Kind::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    Ok(Store::Folder(PathBuf::from(path)))
}

fn local(path: &Path) -> io::Result<StoreFile> {
    // The complete file takes the name from whatever has it: not from a device, and of a link, where that leads to.
    let link = path.is_symlink().then(|| path.canonicalize()).transpose()?;
    let path = link.as_deref().unwrap_or(path);
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("it is there, and no regular file; name another"));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if !folder.as_os_str().is_empty() {
        fs::create_dir_all(folder)?;
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    let part = folder.join(name);
    let file = BufWriter::with_capacity(1 << 16, File::create(&part)?);
    Ok(StoreFile::Local { file, part: Temporary(part), path: path.to_owned() })
}

impl StoreFile {
    /// All is written: gives the file its name.
    ///
    /// # Errors
    /// It cannot be written, or not be named.
    pub fn complete(self) -> Result<(), WriteError> {
        match self {
            Self::Local { mut file, part, path } => {
                let done = file.flush().and_then(|()| fs::rename(&part.0, &path));
                done.map_err(|source| Kind::Io { path: path.display().to_string(), source }.into())
            }
            #[cfg(feature = "remote")]
            Self::Object(upload) => upload.complete(),
        }
    }
}

impl Write for StoreFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local { file, .. } => file.write(bytes),
            #[cfg(feature = "remote")]
            Self::Object(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local { file, .. } => file.flush(),
            // An object is there once it is complete.
            #[cfg(feature = "remote")]
            Self::Object(_) => Ok(()),
        }
    }
}
