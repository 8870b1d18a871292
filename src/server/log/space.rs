//! The reserve of free space: minting and denials stop before it, so that a flood never takes the red
//! button away (contract.md §3). What a client ends by itself stops at half of it, as that can be a flood, too.

use std::time::Duration;

use super::record::Reserve;
use crate::server::store::{Db, StoreError};
use crate::token::Clock;

/// How long PostgreSQL's size is remembered: asking costs more than an append.
const REMEMBER: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

/// Watches the space the log may still take.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// PostgreSQL: the most bytes the log may take, the last 5 % of them reserved; `None`: no promise.
    pub max_bytes: Option<u64>,
    asked: Option<(Duration, Reserve)>,
}

impl Space {
    pub fn new(max_bytes: Option<u64>) -> Self {
        Self { max_bytes, asked: None }
    }

    /// How far into the reserve a record has to go. When that cannot be found out, the append itself will tell.
    pub async fn needs(&mut self, db: &Db, clock: &dyn Clock) -> Reserve {
        match db {
            Db::Sqlite(db) => on_volume_of(db.path()),
            Db::Postgres(pg) => {
                let Some(max) = self.max_bytes else { return Reserve::Closed };
                let now = clock.monotonic();
                if let Some((at, room)) = self.asked
                    && now.saturating_sub(at) < REMEMBER
                {
                    return room;
                }
                let used = log_bytes(pg.pool()).await;
                let room = used.map_or(Reserve::Closed, |used| beyond(max.saturating_sub(used), max / 20));
                self.asked = Some((now, room));
                room
            }
        }
    }
}

/// The reserve of a volume: 5 % of it, at least 16 MiB and at most 256 MiB, never more than a quarter.
pub(super) const fn reserve_of(volume: u64) -> u64 {
    let five_percent = volume / 20;
    let clamped = if five_percent < 16 * MIB {
        16 * MIB
    } else if five_percent > 256 * MIB {
        256 * MIB
    } else {
        five_percent
    };
    if clamped < volume / 4 { clamped } else { volume / 4 }
}

/// With so many bytes free, where so many are the reserve.
const fn beyond(free: u64, reserve: u64) -> Reserve {
    if free > reserve {
        Reserve::Closed
    } else if free > reserve / 2 {
        Reserve::Half
    } else {
        Reserve::Open
    }
}

fn on_volume_of(file: &std::path::Path) -> Reserve {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    rustix::fs::statvfs(directory.unwrap_or_else(|| std::path::Path::new(".")))
        .map_or(Reserve::Closed, |volume| {
            beyond(volume.f_bavail * volume.f_frsize, reserve_of(volume.f_blocks * volume.f_frsize))
        })
}

async fn log_bytes(pool: &sqlx::PgPool) -> Result<u64, StoreError> {
    let bytes: i64 = sqlx::query_scalar(
        "SELECT COALESCE(SUM(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c \
         WHERE c.relkind = 'r' AND c.relname LIKE 'audit\\_%' AND c.relnamespace = to_regnamespace('public')",
    )
    .fetch_one(pool)
    .await?;
    Ok(bytes.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_five_percent_within_bounds() {
        assert_eq!(reserve_of(1024 * 1024 * MIB), 256 * MIB);
        assert_eq!(reserve_of(1000 * MIB), 50 * MIB);
        assert_eq!(reserve_of(100 * MIB), 16 * MIB);
        assert_eq!(reserve_of(3 * MIB), 3 * MIB / 4, "a tiny volume still serves");
    }

    #[test]
    fn half_of_the_reserve_is_for_administrators() {
        for (free, needs) in [
            (101, Reserve::Closed),
            (100, Reserve::Half),
            (51, Reserve::Half),
            (50, Reserve::Open),
            (0, Reserve::Open),
        ] {
            assert_eq!(beyond(free, 100), needs, "{free}");
        }
    }
}
