//! Those who take part, each set up as its documentation shows.

use anyhow::{Context, Result};
use ringtap::Config;
use ringtap_tracing::Builder;
use std::any::Any;
use std::fs::File;
use std::path::Path;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Nobody,
    Visitor,
    Bare,
    Subscriber,
    Layer,
    PerfettoFile,
    Chrome,
    Appender,
}

impl Contender {
    pub const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Visitor,
        Self::Bare,
        Self::Subscriber,
        Self::Layer,
        Self::PerfettoFile,
        Self::Chrome,
        Self::Appender,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Visitor => "visitor",
            Self::Bare => "bare",
            Self::Subscriber => "subscriber",
            Self::Layer => "layer",
            Self::PerfettoFile => "perfetto-file",
            Self::Chrome => "chrome",
            Self::Appender => "appender",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Nobody => "no subscriber",
            Self::Visitor => "visits values, writes nothing",
            Self::Bare => "the same, and a bare record",
            Self::Subscriber => "ringtap's Subscriber",
            Self::Layer => "ringtap's Layer on Registry",
            Self::PerfettoFile => "tracing-perfetto-file",
            Self::Chrome => "tracing-chrome",
            Self::Appender => "tracing-appender + fmt",
        }
    }

    /// Whether there is a trace to read.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Nobody | Self::Visitor | Self::Bare)
    }

    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|contender| contender.name() == name).context("no such contender")
    }

    /// Makes it the process's global subscriber. `path` is its file, or the socket of ringtap's host; without one, ringtap
    /// writes into memory of its own. What is returned keeps it going.
    pub fn start(self, path: &Path) -> Result<Box<dyn Any>> {
        let registry = tracing_subscriber::registry();
        let ringtap = || {
            let builder = Builder::new().without_log();
            if path.exists() {
                builder.attach(path)
            } else {
                builder.embedded().unserved().config(Config::default())
            }
        };
        let (dispatch, guard): (Dispatch, Box<dyn Any>) = match self {
            Self::Nobody => return Ok(Box::new(())),
            Self::Visitor => (crate::floor::Floor::new(None).into(), Box::new(())),
            Self::Bare => {
                let host = ringtap::Host::new(&Config::default())?;
                (crate::floor::Floor::new(Some(host.writer())).into(), Box::new(host))
            }
            Self::Subscriber => {
                let (subscriber, session) = ringtap().subscriber()?;
                (subscriber.into(), Box::new(session))
            }
            Self::Layer => {
                let (layer, session) = ringtap().layer()?;
                (registry.with(layer).into(), Box::new(session))
            }
            Self::PerfettoFile => {
                let (layer, guard) = tracing_perfetto_file::PerfettoLayer::builder(File::create(path)?)
                    .with_debug_annotations()
                    .build();
                (registry.with(layer).into(), Box::new(guard))
            }
            Self::Chrome => {
                let (layer, guard) =
                    tracing_chrome::ChromeLayerBuilder::new().file(path).include_args(true).build();
                (registry.with(layer).into(), Box::new(guard))
            }
            Self::Appender => {
                // Blocking on a full queue, or events would be dropped uncounted.
                let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
                    .lossy(false)
                    .finish(File::create(path)?);
                let fmt = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
                (registry.with(fmt).into(), Box::new(guard))
            }
        };
        tracing::dispatcher::set_global_default(dispatch)?;
        Ok(guard)
    }
}
