//! Paths of tiles as C2SP tlog-tiles writes them: `tile/<L>/<N>[.p/<W>]`, `tile/entries/<N>[.p/<W>]`.

use std::fmt::Write as _;

/// A tile as named in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath {
    /// The level of a tile of hashes; `None` for a bundle of entries.
    pub level: Option<u32>,
    /// Its number.
    pub n: u64,
    /// The width of a partial tile, 1 to 255; `None` for a full one.
    pub width: Option<u64>,
}

impl TilePath {
    /// The path below the log's prefix.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("tile/");
        match self.level {
            Some(level) => {
                let _ = write!(out, "{level}/");
            }
            None => out.push_str("entries/"),
        }
        let mut groups = vec![self.n % 1000];
        let mut rest = self.n / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups.iter().skip(1).rev() {
            let _ = write!(out, "x{group:03}/");
        }
        let _ = write!(out, "{:03}", groups[0]);
        if let Some(width) = self.width {
            let _ = write!(out, ".p/{width}");
        }
        out
    }

    /// Reads what follows the log's prefix; `None` unless it is written exactly so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let rest = text.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let level = if level == "entries" { None } else { Some(level.parse().ok()?) };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, Some(width.parse().ok().filter(|w| (1..256).contains(w))?)),
            None => (rest, None),
        };
        let n = number.split('/').try_fold(0u64, |n, group| {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let value: u64 = digits.parse().ok().filter(|_| digits.len() == 3)?;
            n.checked_mul(1000)?.checked_add(value)
        })?;
        let path = Self { level, n, width };
        // one tile has one path: leading zeros, signs and missing x are refused
        (path.text() == text).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification_and_no_others() {
        let path = |level, n, width| TilePath { level, n, width };
        for (text, tile) in [
            ("tile/0/000", path(Some(0), 0, None)),
            ("tile/1/x001/234", path(Some(1), 1234, None)),
            ("tile/entries/x001/x234/067.p/8", path(None, 1_234_067, Some(8))),
        ] {
            assert_eq!(tile.text(), text);
            assert_eq!(TilePath::parse(text), Some(tile));
        }
        for bad in [
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/08",
            "tile/00/001",
            "tile/+1/001",
            "tile/0/001/",
            "tile/0/x001/x002",
            "tile/0/1000",
            "tile/0/",
            "tile/x/000",
            "tile/0/../000",
            "tile/entries/-01",
        ] {
            assert_eq!(TilePath::parse(bad), None, "{bad}");
        }
    }
}
