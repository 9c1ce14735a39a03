//! Services in the kernel's tables: what they are to say (`wanted`), the writes that lead there (`plan`, pure), and the maps
//! themselves (`tables`). docs/steering.md has the design.

mod book;
mod ends;
mod entries;
mod flows;
mod full_nat;
mod plan;
mod ring;
mod slots;
mod tables;
#[cfg(test)]
mod tests;
mod told;
mod wanted;

use vip_common::steering::tables::{ServiceKey, ServicePort};

pub use self::book::{Book, Holder, NoRoom};
pub use self::ends::TunnelEnd;
pub use self::flows::{Flow, FlowCounts};
pub use self::plan::Step;
pub use self::slots::BackendSlot;
pub use self::tables::{ServiceTables, Unfinished};
pub use self::told::{Directory, Known, SharedDirectory, ToldFlows};
pub use self::wanted::{Wanted, WantedBackend, Way};
use super::DataplaneError;
use super::world::map_error;

impl ServiceTables {
    /// What another process wrote, whose services had these slots: see [`Book::adopt`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt(&self, indices: impl IntoIterator<Item = (String, u16)>) -> Result<Book, DataplaneError> {
        let ports: Vec<(ServiceKey, ServicePort)> = self.all_ports().map_err(map_error("SERVICE_PORTS"))?;
        let backends = self.all_backends().map_err(map_error("BACKENDS"))?;
        Ok(Book::adopt(indices, ports, &backends))
    }
}
