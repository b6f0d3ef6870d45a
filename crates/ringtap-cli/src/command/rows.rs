//! Records of a trace as rows of tables.

use super::report::{Item, What};
use crate::provenance::Provenance;
use ringtap_format::text::Common;
use ringtap_tables::{Lost, Origin, Row};
use std::sync::Arc;

/// A row.
pub(super) enum Given<'a> {
    Row(Row<'a>),
    Lost(Lost<'a>),
}

/// Makes rows of records.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// By the items' group.
    origins: Vec<Option<Origin>>,
    /// What was typed, instead of what files say.
    typed: Provenance,
}

impl Rows {
    pub(super) fn new(typed: Provenance) -> Self {
        Self { typed, ..Self::default() }
    }

    pub(super) fn of<'a>(&'a mut self, item: &Item<'a>) -> Given<'a> {
        let &Item { group, provenance, sources, cpu, time, what } = item;
        let Self { origins, typed } = self;
        let place = group as usize;
        if origins.len() <= place {
            origins.resize(place + 1, None);
        }
        let origin = origins[place].get_or_insert_with(|| origin(provenance, typed));
        match what {
            What::Record(record) => {
                let common = Common::of(record, sources.formats.target());
                let (comm, event) = (sources.tasks.name(common.pid), sources.formats.by_id(common.id));
                Given::Row(Row { origin, time, cpu, common, comm, event, record })
            }
            What::Lost(count) => Given::Lost(Lost { origin, time, cpu, count }),
        }
    }
}

fn origin(own: &Provenance, typed: &Provenance) -> Origin {
    let one_of =
        |typed: &Option<String>, own: &Option<String>| typed.as_deref().or(own.as_deref()).map(Arc::from);
    Origin {
        host: one_of(&typed.host, &own.host),
        boot_id: one_of(&typed.boot_id, &own.boot_id),
        instance: one_of(&None, &own.instance),
        epoch_ns: typed.epoch_ns.or(own.epoch_ns),
    }
}
