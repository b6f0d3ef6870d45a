//! Folders of object stores.

use super::{Kind, WriteError};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, parse_url_opts};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Builder, Runtime};

/// A folder of an object store.
#[derive(Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// Uploads go on while we wait for one of them, and stand still otherwise.
    runtime: Arc<Runtime>,
}

/// An object that is being uploaded: at once where it is small, else in parts.
#[derive(Debug)]
pub struct Upload {
    name: String,
    writer: BufWriter,
    runtime: Arc<Runtime>,
}

impl Remote {
    pub(super) fn open(place: &str) -> Result<Self, WriteError> {
        let refused = |why: String| Kind::Place { place: place.to_owned(), why };
        let url = url::Url::parse(place).map_err(|error| refused(error.to_string()))?;
        // Others' settings are named in upper case: AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT.
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let is_ours = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
            is_ours.then_some((name.to_ascii_lowercase(), value))
        });
        let (store, folder) = parse_url_opts(&url, settings).map_err(|error| refused(error.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refused(error.to_string()))?;
        Ok(Self { store: store.into(), folder, runtime: Arc::new(runtime) })
    }

    pub(super) fn upload(&self, name: &str) -> Upload {
        let path = Path::from_iter(self.folder.parts().chain(Path::from(name).parts()));
        let writer = BufWriter::new(Arc::clone(&self.store), path);
        Upload { name: name.to_owned(), writer, runtime: Arc::clone(&self.runtime) }
    }
}

impl Upload {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.writer.write_all(bytes))?;
        Ok(bytes.len())
    }

    pub(super) fn complete(self) -> Result<(), WriteError> {
        let Self { name, mut writer, runtime } = self;
        let done = runtime.block_on(writer.shutdown());
        done.map_err(|source| Kind::Io { path: name, source }.into())
    }
}
